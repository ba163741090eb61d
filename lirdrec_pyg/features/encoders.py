r"""Ready encoders. Each is a callable on a list of inputs.

Its ``name``, ``revision`` and ``settings`` go into the manifest and tell it from others. The settings are those of the
moment: what is set after loading counts.

Models are loaded by their name on the Hugging Face hub, or from a folder: its ``revision`` is the digest of its files.
They are never loaded with code of their own, and pickles of weights only as tensors.
"""

import importlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lirdrec_pyg._io import digest, file_digest

FILES = ('.safetensors', '.bin', '.json', '.txt', '.model', '.jinja')  # what a model's folder is known by


def library(name: str, package: str) -> Any:
    r"""Imports a library that not everybody has."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"'{package}' is needed for this: pip install 'lirdrec-pyg[features]'") from error


def _commit(name: str, revision: str | None) -> str | None:
    # What the hub had under a revision, or under none, when it was loaded; of a folder, the digest of its files.
    if (folder := Path(name)).is_dir():
        files = sorted(file for file in folder.rglob('*') if file.suffix in FILES)
        return digest([(file.relative_to(folder).as_posix(), file) for file in files])
    hub = library('huggingface_hub', 'transformers')
    file = hub.try_to_load_from_cache(name, 'config.json', revision=revision)
    return Path(file).parent.name if isinstance(file, str) else revision


def _plain(config: Any) -> Any:
    r"""Returns a configuration as JSON holds it, without what does not change the result."""
    text = config.to_json_string() if hasattr(config, 'to_json_string') else json.dumps(config, default=str)
    out = json.loads(text)
    for name in ('device', 'transformers_version') if isinstance(out, dict) else ():
        out.pop(name, None)
    return out


def _tokenizer(tokenizer: Any) -> dict[str, Any]:
    names = ('padding_side', 'truncation_side', 'model_max_length', 'special_tokens_map')
    size = len(tokenizer) if hasattr(tokenizer, '__len__') else None
    return {**{name: _plain(getattr(tokenizer, name, None)) for name in names}, 'size': size}


def _has_tokens(tokenizer: Any, text: str) -> bool:
    # What is added to every text does not count. The start is nearly always enough.
    if not hasattr(tokenizer, 'encode'):
        return True
    return any(len(tokenizer.encode(part, add_special_tokens=False)) > 0 for part in (text[:200], text))


def _weights(model: Any) -> str:
    r"""Returns a digest of some values of each tensor of a model. Training changes nearly all of them."""
    parts = []
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor) and not value.is_meta:
            flat = value.detach().flatten()
            some = flat[:: max(1, flat.numel() // 64)][:64].float().cpu()
            parts.append((name, str(value.dtype), tuple(value.shape), some))
    return digest(parts)


class _Transformers:
    def _load(self, auto: str, name: str, revision: str | None, device: str, half: bool) -> Any:
        package = library('transformers', 'transformers')
        self.device, self.dtype = device, torch.bfloat16 if half else torch.float32
        model, info = getattr(package, auto).from_pretrained(
            name, revision=revision, dtype=self.dtype, output_loading_info=True, trust_remote_code=False
        )
        lacking = sorted(info['missing_keys'])
        self.has_pooler = not lacking  # many files leave it out, then it would be random
        if others := [key for key in lacking if not key.startswith('pooler.')]:
            raise ValueError(f"'name' needs to be a model with all of its weights (got {name!r}, without {others[:3]})")
        self.name, self.revision = name, _commit(name, revision)
        self.model = model.to(device).eval()
        return package

    def _common(self) -> dict[str, Any]:
        return {'half_model': self.dtype == torch.bfloat16, 'weights': _weights(self.model)}


class SentenceTransformerEncoder:
    r"""Texts by a model of `sentence-transformers <https://www.sbert.net>`_.

    .. code-block:: python

        encoder = SentenceTransformerEncoder('sentence-transformers/all-MiniLM-L6-v2')
        print(encoder(['a cup', 'a pot']).shape)

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
        package = library('sentence_transformers', 'sentence-transformers')
        self.model = package.SentenceTransformer(name, revision=revision, device=device, trust_remote_code=False)
        if hasattr(self.model.tokenizer, 'padding_side'):
            self.model.tokenizer.padding_side = 'right'  # the positions of a text do not depend on others
        self.name, self.revision, self.half = name, _commit(name, revision), half
        if half:
            self.model.half()

    @property
    def settings(self) -> dict[str, Any]:
        names = ('max_seq_length', 'truncate_dim', 'prompts', 'default_prompt_name')
        return {
            'half_model': self.half,
            **{name: getattr(self.model, name, None) for name in names},
            'modules': _plain([getattr(module, 'get_config_dict', dict)() for module in self.model]),
            'tokenizer': _tokenizer(self.model.tokenizer),
            'weights': _weights(self.model),
        }

    def has_tokens(self, text: str) -> bool:
        r"""Whether anything of a text is known to the model."""
        return _has_tokens(self.model.tokenizer, text)

    def __call__(self, texts: list[str]) -> Tensor:
        return self.model.encode(texts, batch_size=len(texts), convert_to_tensor=True, show_progress_bar=False)  # type: ignore[no-any-return]


class TransformersTextEncoder(_Transformers):
    r"""Texts by any model of `transformers <https://huggingface.co/docs/transformers>`_, such as a large language
    model: the mean over the tokens of its last hidden states.

    .. code-block:: python

        encoder = TransformersTextEncoder('bert-base-uncased')
        print(encoder(['a cup', 'a pot']).shape)

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
        package = self._load('AutoModel', name, revision, device, half)
        self.max_length = max_length
        self.tokenizer = package.AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
        self.tokenizer.padding_side = 'right'  # the positions of a text do not depend on others
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    @property
    def settings(self) -> dict[str, Any]:
        return {**self._common(), 'max_length': self.max_length, 'tokenizer': _tokenizer(self.tokenizer)}

    def has_tokens(self, text: str) -> bool:
        r"""Whether anything of a text is known to the model."""
        return _has_tokens(self.tokenizer, text)

    @torch.no_grad()
    def __call__(self, texts: list[str]) -> Tensor:
        batch = self.tokenizer(texts, padding=True, truncation=True, max_length=self.max_length, return_tensors='pt')
        if batch['input_ids'].size(1) == 0:  # models need a place, if only one that does not count
            batch.update({name: torch.zeros(len(texts), 1, dtype=torch.long) for name in batch})
        batch = batch.to(self.device)
        hidden = self.model(**batch).last_hidden_state.float()  # [N, tokens, C]
        mask = batch['attention_mask'].unsqueeze(-1)
        return hidden.masked_fill(mask == 0, 0).sum(dim=1) / mask.sum(dim=1).clamp(min=1)  # type: ignore[no-any-return]


class TransformersImageEncoder(_Transformers):
    r"""Images by a model of `transformers <https://huggingface.co/docs/transformers>`_: the image features of CLIP or
    SigLIP, or the pooled output of a vision transformer or a convolutional network. Where the files of a model
    leave its pooling layer out, this is the mean over the patches.

    .. code-block:: python

        encoder = TransformersImageEncoder('openai/clip-vit-base-patch32')
        out = encode_images(['cup.jpg', None], encoder, 'features')

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
        library('PIL', 'pillow')
        package = self._load('AutoModel', name, revision, device, half)
        self.processor = package.AutoImageProcessor.from_pretrained(name, revision=revision, trust_remote_code=False)

    @property
    def settings(self) -> dict[str, Any]:
        return {**self._common(), 'processor': _plain(self.processor)}

    @torch.no_grad()
    def __call__(self, images: list[Any]) -> Tensor:
        pixels = self.processor(images=images, return_tensors='pt')['pixel_values'].to(self.device, self.dtype)
        if hasattr(self.model, 'get_image_features'):
            out = self.model.get_image_features(pixel_values=pixels)
        else:
            out = self.model(pixel_values=pixels)
        if isinstance(out, Tensor):
            return out.float()
        if self.has_pooler and out.get('pooler_output') is not None:
            return out.pooler_output.flatten(1).float()  # type: ignore[no-any-return]
        return out.last_hidden_state.mean(dim=1).float()  # type: ignore[no-any-return]


class TimmEncoder:
    r"""Images by a model of `timm <https://huggingface.co/docs/timm>`_, without its classifier.

    .. code-block:: python

        encoder = TimmEncoder('resnet50')
        out = encode_images(['cup.jpg', None], encoder, 'features')

    Args:
        name (str, optional): The model. (default: ``'resnet50.a1_in1k'``)
        checkpoint (str, optional): A file of weights to load instead of the published ones; its sha256 is the revision.
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
        package = library('timm', 'timm')
        self.name, self.revision = name, None if checkpoint is None else file_digest(checkpoint)
        self.half, self.checkpoint, self.pretrained = half, checkpoint, pretrained
        self.device, self.dtype = device, torch.bfloat16 if half else torch.float32
        model = package.create_model(name, pretrained=pretrained and checkpoint is None)
        if checkpoint is not None:
            model.load_state_dict(torch.load(checkpoint, map_location='cpu', weights_only=True))
        model.reset_classifier(0)
        self.model = model.to(device, self.dtype).eval()
        config = package.data.resolve_model_data_config(self.model)
        self.transform = package.data.create_transform(**config, is_training=False)

    @property
    def settings(self) -> dict[str, Any]:
        names = ('checkpoint', 'pretrained', 'transform')
        return {
            'half_model': self.half,
            **{name: getattr(self, name) for name in names},
            'weights': _weights(self.model),
        }

    @torch.no_grad()
    def __call__(self, images: list[Any]) -> Tensor:
        pixels = torch.stack([self.transform(image) for image in images]).to(self.device, self.dtype)
        return self.model(pixels).float()  # type: ignore[no-any-return]


class TransformersCaptioner(_Transformers):
    r"""Texts that a multimodal language model of `transformers <https://huggingface.co/docs/transformers>`_ (image and
    text to text, with a chat template) writes about images, without sampling.

    .. code-block:: python

        captioner = TransformersCaptioner(prompt='Describe this product.')
        out = caption_images(['cup.jpg', None], captioner, 'features')

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
        library('PIL', 'pillow')
        package = self._load('AutoModelForImageTextToText', name, revision, device, half)
        self.prompt, self.max_new_tokens = prompt, max_new_tokens
        self.processor = package.AutoProcessor.from_pretrained(name, revision=revision, trust_remote_code=False)
        tokenizer = self.processor.tokenizer
        tokenizer.padding_side = 'left'  # answers of a batch start at the same place
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token

    @property
    def question(self) -> str:
        r"""The prompt in the model's template of a chat."""
        message = {'role': 'user', 'content': [{'type': 'image'}, {'type': 'text', 'text': self.prompt}]}
        return self.processor.apply_chat_template([message], add_generation_prompt=True, tokenize=False)

    @property
    def settings(self) -> dict[str, Any]:
        return {
            **self._common(),
            'prompt': self.prompt,
            'question': self.question,
            'max_new_tokens': self.max_new_tokens,
            'generation': _plain(self.model.generation_config),
            'processor': _plain(self.processor),
            'image_processor': _plain(self.processor.image_processor),
            'tokenizer': _tokenizer(self.processor.tokenizer),
        }

    @torch.no_grad()
    def __call__(self, images: list[Any]) -> list[str]:
        question, start = self.question, self.processor.tokenizer.bos_token
        begun = {'add_special_tokens': False} if start is not None and question.startswith(start) else {}
        inputs = self.processor(
            text=[question] * len(images), images=[[image] for image in images], padding=True, return_tensors='pt',
            **begun,
        ).to(self.device)  # fmt: skip
        inputs['pixel_values'] = inputs['pixel_values'].to(self.dtype)
        out = self.model.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False)
        answers = self.processor.batch_decode(out[:, inputs['input_ids'].size(1) :], skip_special_tokens=True)
        return [answer.strip() for answer in answers]
