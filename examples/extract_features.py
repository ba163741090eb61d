r"""Computes the features of a catalogue's items: of their texts, of their images, and of texts that a multimodal
language model writes about their images.

    python examples/extract_features.py --items data/baby/items.tsv --out data/baby
    python examples/extract_features.py --items products.csv --text name description --image photo --out features
    python examples/extract_features.py --fake --out runs/features
    python examples/extract_features.py --fake --items data/fake/baby/items.tsv --out data/fake/baby

Row i of a feature file belongs to line i of the table (sorted by itemID, where it has that column), so a folder that
examples/build_amazon.py wrote needs nothing else. The work is kept in pieces: start the same command again after a
crash and it goes on. Items without a text or a readable image are marked in <modality>_mask.npy. With --fake, tiny
models with random weights are made first and take the place of the encoders, so nothing is downloaded; without --items,
a few products and their images are made, too. This never replaces features that were computed in earnest.
"""

import argparse
import csv
import json
from pathlib import Path

import pandas as pd
import torch

from lirdrec_pyg.features import (
    EncodedFeatures,
    SentenceTransformerEncoder,
    TransformersCaptioner,
    TransformersImageEncoder,
    caption_images,
    encode_images,
    encode_texts,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--items', type=Path, help='a CSV or TSV table, a line for each item')
    parser.add_argument('--text', nargs='+', default=['text'], help='columns that make the text (default: text)')
    parser.add_argument('--image', help='the column with the paths of images (default: no images)')
    parser.add_argument('--image-root', type=Path, help='the folder that these paths start from')
    parser.add_argument('--out', type=Path, required=True, help='the folder of the feature files')
    parser.add_argument('--text-encoder', default='sentence-transformers/all-MiniLM-L6-v2', help='%(default)s')
    parser.add_argument('--image-encoder', default='openai/clip-vit-base-patch32', help='%(default)s')
    parser.add_argument('--captioner', help='a model that describes images; makes the modality "caption"')
    parser.add_argument('--prompt', default='Describe the product in this image.', help='what it is asked')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu', help='default: %(default)s')
    parser.add_argument('--half', action='store_true', help='compute in half precision')
    parser.add_argument('--fake', action='store_true', help='make tiny models first, and products if there are none')
    args = parser.parse_args()
    if not args.fake and args.items is None:
        parser.error('either --items or --fake is needed: --fake makes items of its own')
    if args.fake:
        names = ['text', *(['image', 'caption'] if args.image or args.items is None else [])]
        for path in [args.out / f'{name}_feat.npy' for name in names]:
            if path.is_file() and not is_fake(path):
                parser.error(f"'{path}' holds features of a catalogue: give --fake another folder")
        make_fake_models(args)
        if args.items is None:
            make_fake_products(args)

    table = {'sep': '\t', 'quoting': csv.QUOTE_NONE} if args.items.suffix == '.tsv' else {}
    frame = pd.read_csv(args.items, dtype=str, keep_default_na=False, **table)
    for column in [*args.text, *([args.image] if args.image else [])]:
        if column not in frame:
            parser.error(f"'{args.items}' lacks the column '{column}' (found {list(frame.columns)})")
    if 'itemID' in frame:
        frame = frame.sort_values('itemID', key=lambda column: column.astype(int))
    ids = frame['raw_id' if 'raw_id' in frame else frame.columns[0]].tolist()

    text_encoder = SentenceTransformerEncoder(args.text_encoder, device=args.device, half=args.half)
    texts = frame[args.text].agg(' '.join, axis=1).tolist()
    report('text', encode_texts(texts, text_encoder, args.out, ids=ids))
    if args.image:
        paths = frame[args.image].tolist()
        images = {'root': args.image_root, 'ids': ids}
        encoder = TransformersImageEncoder(args.image_encoder, device=args.device, half=args.half)
        report('image', encode_images(paths, encoder, args.out, **images))
        if args.captioner:
            captioner = TransformersCaptioner(args.captioner, args.prompt, device=args.device, half=args.half)
            captions = caption_images(paths, captioner, args.out, **images)
            report('caption', encode_texts(captions.texts, text_encoder, args.out, 'caption', ids=ids))


def report(name: str, out: EncodedFeatures) -> None:
    r"""Prints what was written."""
    known = out.manifest
    print(
        f'{name}: {tuple(out.x.shape)} in {out.path}, {known["missing"]} items have none, {known["unreadable"]} are '
        f'unreadable, {known["blank"]} are images of one colour'
    )


def is_fake(path: Path) -> bool:
    r"""Whether features were made by --fake."""
    known = path.with_name(path.name.replace('_feat.npy', '_manifest.json'))
    return known.is_file() and Path(json.loads(known.read_text())['encoder']).parent.name == 'fake'


def make_fake_products(args: argparse.Namespace) -> None:
    r"""Makes a table of products and their images, and points the arguments to them."""
    from PIL import Image

    folder = args.out / 'fake'
    (folder / 'images').mkdir(parents=True, exist_ok=True)
    rows = []
    for number, color in enumerate(['red', 'green', 'blue', 'white']):
        Image.new('RGB', (48, 40), color).save(folder / 'images' / f'{color}.png')
        rows.append({'sku': f'P{number}', 'name': f'{color} cup', 'photo': f'{color}.png'})
    rows.append({'sku': 'P4', 'name': 'a cup without photo', 'photo': ''})
    pd.DataFrame(rows).to_csv(folder / 'products.csv', index=False)
    args.items, args.text, args.image, args.image_root = folder / 'products.csv', ['name'], 'photo', folder / 'images'
    print('made', json.dumps([row['name'] for row in rows]))


def make_fake_models(args: argparse.Namespace) -> None:
    r"""Makes tiny models with random weights, and points the arguments to them."""
    import transformers as hf
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers

    hf.utils.logging.disable_progress_bar()
    hf.logging.set_verbosity_error()
    torch.manual_seed(0)
    folder = args.out / 'fake'
    folder.mkdir(parents=True, exist_ok=True)
    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '<image>', 'red', 'green', 'blue', 'white', 'cup', 'a']
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token='[UNK]'))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = hf.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token='[PAD]', unk_token='[UNK]', cls_token='[CLS]', sep_token='[SEP]',
        eos_token='[SEP]', additional_special_tokens=['<image>'],
    )  # fmt: skip
    sizes = {'hidden_size': 16, 'intermediate_size': 16, 'num_hidden_layers': 2, 'num_attention_heads': 2}
    bert, text, vit, llava = (str(folder / name) for name in ('bert', 'text', 'vit', 'llava'))
    hf.BertModel(hf.BertConfig(vocab_size=len(words), **sizes)).save_pretrained(bert)
    tokenizer.save_pretrained(bert)
    SentenceTransformer(modules=[Transformer(bert), Pooling(16)]).save(text)
    size = {'height': 32, 'width': 32}
    hf.ViTModel(hf.ViTConfig(image_size=32, patch_size=16, **sizes)).save_pretrained(vit)
    hf.ViTImageProcessor(size=size).save_pretrained(vit)
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(image_size=32, patch_size=16, **sizes),
        text_config=hf.LlamaConfig(vocab_size=len(words), pad_token_id=0, bos_token_id=2, eos_token_id=3, **sizes),
        image_token_id=4,
    )
    model = hf.LlavaForConditionalGeneration(config)
    model.generation_config.suppress_tokens = list(range(5))  # it writes words
    model.save_pretrained(llava)
    template = (
        '{% for m in messages %}{% for part in m.content %}'
        "{{ '<image> ' if part.type == 'image' else part.text }}{% endfor %}{% endfor %}"
    )
    hf.LlavaProcessor(
        image_processor=hf.CLIPImageProcessor(size={'shortest_edge': 32}, crop_size=size), tokenizer=tokenizer,
        patch_size=16, vision_feature_select_strategy='default', num_additional_image_tokens=1, chat_template=template,
    ).save_pretrained(llava)  # fmt: skip
    args.text_encoder, args.image_encoder, args.captioner = text, vit, llava


if __name__ == '__main__':
    main()
