r"""Ready encoders. Each is a callable on a list of inputs; its ``name``, ``revision`` and ``settings`` go into the
manifest. Models are loaded by their name on the Hugging Face hub or from a folder, and never with code of their own."""

import importlib
from typing import Any

import torch
from torch import Tensor


def _library(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"'{package}' is needed for this encoder: pip install 'lirdrec-pyg[features]'") from error


class SentenceTransformerEncoder:
    r"""Texts by a model of `sentence-transformers <https://www.sbert.net>`_.

    Args:
        name (str, optional): The model; the default makes the text features of the paper's datasets.
            (default: ``'sentence-transformers/all-MiniLM-L6-v2'``)
        revision (str, optional): The revision of the model on the hub.
        device (str, optional): Where it runs. (default: the library's choice)
        half (bool, optional): Whether it computes in half precision. (default: :obj:`False`)

    Shapes:
        - **output:** :math:`(N, C)`, 384 columns for the default model
    """

    def __init__(
        self,
        name: str = 'sentence-transformers/all-MiniLM-L6-v2',
        revision: str | None = None,
        device: str | None = None,
        half: bool = False,
    ) -> None:
        library = _library('sentence_transformers', 'sentence-transformers')
        self.name, self.revision, self.settings = name, revision, {'half_model': half}
        self.model = library.SentenceTransformer(name, revision=revision, device=device)
        if half:
            self.model.half()

    def __call__(self, texts: list[str]) -> Tensor:
        return self.model.encode(texts, batch_size=len(texts), convert_to_tensor=True, show_progress_bar=False)  # type: ignore[no-any-return]


class TransformersTextEncoder:
    r"""Texts by any model of `transformers <https://huggingface.co/docs/transformers>`_, such as a large language
    model: the mean over the tokens of its last hidden states.

    Args:
        name (str): The model.
        revision (str, optional): The revision of the model on the hub.
        device (str, optional): Where it runs. (default: ``'cpu'``)
        half (bool, optional): Whether it computes in bfloat16. (default: :obj:`False`)
        max_length (int, optional): The number of tokens after which a text is cut. (default: :obj:`512`)
    """

    def __init__(
        self, name: str, revision: str | None = None, device: str = 'cpu', half: bool = False, max_length: int = 512
    ) -> None:
        library = _library('transformers', 'transformers')
        self.name, self.revision, self.settings = name, revision, {'half_model': half, 'max_length': max_length}
        self.device, self.max_length = device, max_length
        self.tokenizer = library.AutoTokenizer.from_pretrained(name, revision=revision)
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        model = library.AutoModel.from_pretrained(name, revision=revision, dtype=_dtype(half))
        self.model = model.to(device).eval()

    @torch.no_grad()
    def __call__(self, texts: list[str]) -> Tensor:
        batch = self.tokenizer(texts, padding=True, truncation=True, max_length=self.max_length, return_tensors='pt')
        batch = batch.to(self.device)
        hidden = self.model(**batch).last_hidden_state.float()  # [N, tokens, C]
        mask = batch['attention_mask'].unsqueeze(-1)
        return (hidden * mask).sum(dim=1) / mask.sum(dim=1)  # type: ignore[no-any-return]


class TransformersImageEncoder:
    r"""Images by a model of `transformers <https://huggingface.co/docs/transformers>`_: the image features of CLIP or
    SigLIP, or the pooled output of a vision transformer or a convolutional network.

    Args:
        name (str, optional): The model. (default: ``'openai/clip-vit-base-patch32'``)
        revision (str, optional): The revision of the model on the hub.
        device (str, optional): Where it runs. (default: ``'cpu'``)
        half (bool, optional): Whether it computes in bfloat16. (default: :obj:`False`)
    """

    def __init__(
        self,
        name: str = 'openai/clip-vit-base-patch32',
        revision: str | None = None,
        device: str = 'cpu',
        half: bool = False,
    ) -> None:
        library = _library('transformers', 'transformers')
        _library('PIL', 'pillow')
        self.name, self.revision, self.settings = name, revision, {'half_model': half}
        self.device, self.dtype = device, _dtype(half)
        self.processor = library.AutoImageProcessor.from_pretrained(name, revision=revision)
        model = library.AutoModel.from_pretrained(name, revision=revision, dtype=self.dtype)
        self.model = model.to(device).eval()

    @torch.no_grad()
    def __call__(self, images: list[Any]) -> Tensor:
        pixels = self.processor(images=images, return_tensors='pt')['pixel_values'].to(self.device, self.dtype)
        if hasattr(self.model, 'get_image_features'):
            out = self.model.get_image_features(pixel_values=pixels)
        else:
            out = self.model(pixel_values=pixels)
        if isinstance(out, Tensor):
            return out.float()
        pooled = out.pooler_output if out.get('pooler_output') is not None else out.last_hidden_state.mean(dim=1)
        return pooled.flatten(1).float()  # type: ignore[no-any-return]


class TimmEncoder:
    r"""Images by a model of `timm <https://huggingface.co/docs/timm>`_, without its classifier.

    Args:
        name (str, optional): The model. (default: ``'resnet50.a1_in1k'``)
        checkpoint (str, optional): A file of weights to load instead of the published ones.
        device (str, optional): Where it runs. (default: ``'cpu'``)
        half (bool, optional): Whether it computes in bfloat16. (default: :obj:`False`)
        pretrained (bool, optional): Whether to load weights at all. (default: :obj:`True`)
    """

    def __init__(
        self,
        name: str = 'resnet50.a1_in1k',
        checkpoint: str | None = None,
        device: str = 'cpu',
        half: bool = False,
        pretrained: bool = True,
    ) -> None:
        library = _library('timm', 'timm')
        self.name, self.revision = name, None
        self.settings = {'half_model': half, 'checkpoint': checkpoint}
        self.device, self.dtype = device, _dtype(half)
        model = library.create_model(name, pretrained=pretrained and checkpoint is None)
        if checkpoint is not None:
            model.load_state_dict(torch.load(checkpoint, map_location='cpu', weights_only=True))
        model.reset_classifier(0)
        self.model = model.to(device, self.dtype).eval()
        config = library.data.resolve_model_data_config(self.model)
        self.transform = library.data.create_transform(**config, is_training=False)

    @torch.no_grad()
    def __call__(self, images: list[Any]) -> Tensor:
        pixels = torch.stack([self.transform(image) for image in images]).to(self.device, self.dtype)
        return self.model(pixels).float()  # type: ignore[no-any-return]


class TransformersCaptioner:
    r"""Texts that a multimodal language model of `transformers <https://huggingface.co/docs/transformers>`_ (image and
    text to text, with a chat template) writes about images.

    Args:
        name (str, optional): The model. (default: ``'HuggingFaceTB/SmolVLM-256M-Instruct'``)
        prompt (str, optional): What it is asked.
        revision (str, optional): The revision of the model on the hub.
        device (str, optional): Where it runs. (default: ``'cpu'``)
        half (bool, optional): Whether it computes in bfloat16. (default: :obj:`False`)
        max_new_tokens (int, optional): The length of an answer at most. (default: :obj:`64`)
    """

    def __init__(
        self,
        name: str = 'HuggingFaceTB/SmolVLM-256M-Instruct',
        prompt: str = 'Describe the product in this image: what it is, what it looks like and what it is used for.',
        revision: str | None = None,
        device: str = 'cpu',
        half: bool = False,
        max_new_tokens: int = 64,
    ) -> None:
        library = _library('transformers', 'transformers')
        _library('PIL', 'pillow')
        self.name, self.revision, self.prompt = name, revision, prompt
        self.settings = {'prompt': prompt, 'half_model': half, 'max_new_tokens': max_new_tokens}
        self.device, self.dtype, self.max_new_tokens = device, _dtype(half), max_new_tokens
        self.processor = library.AutoProcessor.from_pretrained(name, revision=revision)
        model = library.AutoModelForImageTextToText.from_pretrained(name, revision=revision, dtype=self.dtype)
        self.model = model.to(device).eval()

    @torch.no_grad()
    def __call__(self, images: list[Any]) -> list[str]:
        texts = []
        for image in images:  # one at a time: chat templates pad differently
            content = [{'type': 'image', 'image': image}, {'type': 'text', 'text': self.prompt}]
            inputs = self.processor.apply_chat_template(
                [{'role': 'user', 'content': content}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors='pt',
            ).to(self.device)
            if 'pixel_values' in inputs:
                inputs['pixel_values'] = inputs['pixel_values'].to(self.dtype)
            out = self.model.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False)
            answer = out[:, inputs['input_ids'].size(1) :]
            texts.append(self.processor.batch_decode(answer, skip_special_tokens=True)[0].strip())
        return texts


def _dtype(half: bool) -> torch.dtype:
    return torch.bfloat16 if half else torch.float32
