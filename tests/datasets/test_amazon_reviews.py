import ast
import contextlib
import gzip
import hashlib
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import lirdrec_pyg
from lirdrec_pyg.datasets import _amazon
from lirdrec_pyg.datasets._amazon import find_url, flatten
from lirdrec_pyg.datasets.amazon_reviews import AmazonReviews
from lirdrec_pyg.typing import INTERACTS, modalities

BAD_UTF8 = b'{"reviewerID": "U0", "asin": "B00000000A", "reviewText": "caf\xe9", "overall": 5.0, "unixReviewTime": 1}'
A, B, C, D = (f'B00000000{letter}' for letter in 'ABCD')
# Users U0 to U2 review items A to C, so these are a 3-core; item D has one review and goes. U0 reviews A twice.
PAIRS = [(u, i) for u in range(3) for i in (C, B, A)]


def review(user, item, rating=5.0, time=1_400_000_000, **more):
    return {'reviewerID': f'U{user}', 'asin': item, 'overall': rating, 'unixReviewTime': time, **more}


def reviews():
    rows = [review(u, i, time=1_400_000_000 + n, summary='"asin": "no"', helpful=[0, 1])
            for n, (u, i) in enumerate(PAIRS)]  # fmt: skip
    return [*rows, review(0, A, rating=2, time=1_500_000_000), review(0, D)]


def review_2023(row):
    ids = {'user_id': row['reviewerID'], 'asin': 'VARIANT', 'parent_asin': row['asin']}
    return ids | {'rating': row['overall'], 'timestamp': row['unixReviewTime'] * 1000 + 999, 'verified_purchase': True}


META_2014 = [
    {'asin': A, 'title': "Don't &amp; Do", 'price': 3.5, 'imUrl': 'http://images/a.jpg', 'related': {'also': [D]},
     'brand': 'Acme', 'categories': [['Baby', 'Toys'], ['Sale']],
     'description': '<p>Soft\n<b class="x">bear</b>.</p> 2 < 3'},
    {'related': {}, 'asin': B, 'imUrl': 'http://x/icons/no-img-sm._CB1_.gif', 'salesRank': {'Baby': 3}},
    {'asin': A, 'title': 'again'},
    {'asin': D, 'title': 'not wanted'},
    {'asin': C, 'title': 'Caf\u00e9 \\d', 'description': ''},
]  # fmt: skip
META_2018 = [
    {'category': ['Baby', 'Toys'], 'tech1': '', 'description': ['<br>Soft &quot;bear&quot;', '', 'new'],
     'title': 'Bear', 'image': ['http://images/small.jpg'], 'imageURL': ['http://images/thumb.jpg'],
     'imageURLHighRes': ['http://images/high.jpg'], 'feature': ['warm', 'blue'], 'price': '$12.99', 'asin': A},
    {'title': 'Ball', 'brand': 'Acme', 'image': [], 'price': '.a-section { color: red }', 'asin': B},
    {'title': 'Ball', 'asin': B},
    {'title': 'lost', 'asin': None},
]  # fmt: skip
META_2023 = [
    {'main_category': 'Baby', 'title': 'Bear', 'features': ['warm'], 'description': ['a', 'b'], 'price': None,
     'images': [{'thumb': 'https://i/t.jpg', 'large': 'https://i/l.jpg', 'variant': 'MAIN', 'hi_res': None}],
     'store': 'Acme', 'categories': ['Baby', 'Toys'], 'details': {'x': '1'}, 'parent_asin': A},
    {'title': 'Ball', 'price': 3.0, 'images': {'hi_res': [None, 'https://i/h.jpg'], 'large': []}, 'parent_asin': B},
    {'title': None, 'images': [], 'parent_asin': C},
]  # fmt: skip


def write_lines(path, rows):
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    content = b'\n'.join(lines) + b'\n'
    path.write_bytes(gzip.compress(content) if path.suffix == '.gz' else content)


def write_2014(root, rows=None, meta=None, name='Baby'):
    raw = root / '2014' / 'raw'
    write_lines(raw / f'reviews_{name}_5.json.gz', rows or reviews())
    write_lines(raw / f'meta_{name}.json.gz', [repr(row).encode() for row in META_2014] if meta is None else meta)
    return raw


def write_image_features(path, asins, seed=0):
    records = np.zeros(len(asins), dtype=_amazon.RECORD)
    records['asin'] = asins
    records['x'] = np.random.default_rng(seed).normal(size=(len(asins), 4096))
    path.write_bytes(b''.join(row['asin'].tobytes() + row['x'].tobytes() for row in records))
    return records['x']


def build(root, name='baby', version='2014', k_core=3, image_features=False, **kwargs):
    return AmazonReviews(
        str(root), name, version, k_core=k_core, image_features=image_features, progress=False, **kwargs
    )


def check_graph(data, late=0):
    data.validate()
    assert data['user'].raw_id == ['U0', 'U1', 'U2']
    assert data['item'].raw_id == [A, B, C]
    store = data[INTERACTS]
    # By user and time; the later of U0's reviews of A counts.
    assert store.edge_index.tolist() == [[0, 0, 0, 1, 1, 1, 2, 2, 2], [2, 1, 0, 2, 1, 0, 2, 1, 0]]
    time = [1_400_000_000 + seconds + late for seconds in (0, 1, 100_000_000, 3, 4, 5, 6, 7, 8)]
    assert store.time.tolist() == time
    assert store.rating.tolist() == [5, 5, 2, 5, 5, 5, 5, 5, 5]
    assert store.rating.dtype == torch.float32 and store.time.dtype == (torch.float64 if late else torch.int64)


def test_2014(tmp_path):
    write_2014(tmp_path)
    dataset = build(tmp_path)
    assert str(dataset) == "AmazonReviews('baby', version='2014', min_rating=None, k_core=3)"
    data = dataset[0]
    check_graph(data)
    item = data['item']
    assert item.title == ["Don't & Do", '', 'Café \\d']
    assert item.text == ["Don't & Do Acme Baby Toys Sale Soft bear . 2 < 3", '', 'Café \\d']
    assert item.image_url == ['http://images/a.jpg', None, None]
    assert modalities(data) == []
    report = dataset.provenance['report']
    assert report['reviews'] == {'lines': 11, 'skipped': 0, 'malformed': 0, 'reasons': {}}
    assert report['interactions'] == {'below min_rating': 0, 'repeated': 1, 'outside the k-core': 1, 'kept': 9}
    assert report['metadata'] == {'lines': 5, 'skipped': 1, 'malformed': 0, 'reasons': {}, 'repeated': 1}
    assert report['users'] == {'kept': 3}
    expected = {'kept': 3, 'without metadata': 0, 'without title': 1, 'without text': 1, 'without image URL': 2}
    assert report['items'] == expected


def test_2018(tmp_path):
    raw = tmp_path / '2018' / 'raw'
    write_lines(raw / 'Toys_and_Games_5.json.gz', [*reviews(), BAD_UTF8])
    write_lines(raw / 'meta_Toys_and_Games.json.gz', META_2018)
    fields = ('title', 'brand', 'categories', 'features', 'description', 'price')
    with pytest.warns(UserWarning, match='left out: 1 of') as record:
        dataset = build(tmp_path, 'Toys_and_Games', '2018', text_fields=fields, max_malformed=0.3)
    assert [re.sub("'/.*/", "'", str(warning.message)) for warning in record] == [
        "left out: 1 of 12 lines of 'Toys_and_Games_5.json.gz' are malformed: 1 not UTF-8 (first: [12])",
        "left out: 1 of 4 lines of 'meta_Toys_and_Games.json.gz' are malformed: 1 without 'asin' (first: [4])",
    ]
    check_graph(dataset[0])
    item = dataset[0]['item']
    assert item.title == ['Bear', 'Ball', '']
    assert item.text == ['Bear Baby Toys warm blue Soft "bear" new $12.99', 'Ball Acme .a-section { color: red }', '']
    assert item.image_url == ['http://images/high.jpg', None, None]
    report = dataset.provenance['report']
    assert report['metadata']['repeated'] == 1 and report['items']['without metadata'] == 1
    assert report['reviews']['reasons'] == {'not UTF-8': {'count': 1, 'first_lines': [12]}}


def test_2023_unpacked(tmp_path):
    raw = tmp_path / '2023' / 'raw'
    write_lines(raw / 'Baby_Products.jsonl', [review_2023(row) for row in reviews()])
    write_lines(raw / 'meta_Baby_Products.jsonl.gz', [*META_2023, b'', b'  '])
    dataset = build(tmp_path, version='2023')
    assert dataset.raw_file_names == ['Baby_Products.jsonl', 'meta_Baby_Products.jsonl.gz']
    check_graph(dataset[0], late=0.999)
    item = dataset[0]['item']
    assert item.title == ['Bear', 'Ball', '']
    assert item.text == ['Bear Acme Baby Toys a b', 'Ball', '']
    assert item.image_url == ['https://i/l.jpg', 'https://i/h.jpg', None]


def test_milliseconds_of_2023_order_what_happens_within_a_second(tmp_path):
    raw = tmp_path / '2023' / 'raw'
    rows = [
        {'user_id': 'U', 'parent_asin': item, 'rating': stars, 'timestamp': 1_600_000_000_000 + ticks}
        for item, stars, ticks in [(B, 1.0, 900), (A, 2.0, 500), (A, 3.0, 100), (C, 4.0, 300)]
    ]
    write_lines(raw / 'Baby_Products.jsonl.gz', rows)
    write_lines(raw / 'meta_Baby_Products.jsonl.gz', META_2023)
    data = build(tmp_path, version='2023', k_core=0)[0]
    store = data[INTERACTS]
    assert [data['item'].raw_id[i] for i in store.edge_index[1]] == [C, A, B]
    assert store.rating.tolist() == [4, 2, 1]  # the later review of A counts
    assert store.time.tolist() == [1_600_000_000.3, 1_600_000_000.5, 1_600_000_000.9]


def test_malformed_lines(tmp_path):
    odd = [
        b'{"reviewerID": "U0", "asin": "B000000',
        BAD_UTF8,
        {'reviewerID': 'U0', 'overall': 5.0, 'unixReviewTime': 1},
        review(0, A, rating='good'),
        review(0, A, rating=float('nan')),
        review(0, A, time=float('inf')),
        review(0, A) | {'reviewerID': 7},
        b'[1, 2]',
        b'{"a": ' * 5000,
        b'"' + b'x' * (1 << 20) + b'"',
    ]
    rows = [review(u, i, rating='5') for u in range(20) for i in (A, B, C)] + odd
    write_2014(tmp_path, rows)
    with pytest.raises(ValueError, match=r"'max_malformed' is 0.14, and 10 of 70 lines of '.*5.json.gz' are malformed: "
                       r"3 not a JSON object or Python dict \(first: \[61, 68, 69\]\); "):  # fmt: skip
        build(tmp_path, max_malformed=0.14)
    with pytest.warns(UserWarning, match='left out: 10 of 70'):
        dataset = build(tmp_path, max_malformed=10 / 70)
    assert dataset[0][INTERACTS].edge_index.size(1) == 60
    reasons = dataset.provenance['report']['reviews']['reasons']
    assert {reason: found['first_lines'] for reason, found in reasons.items()} == {
        'not a JSON object or Python dict': [61, 68, 69],
        'not UTF-8': [62],
        "without 'asin'": [63],
        "whose 'overall' or 'unixReviewTime' is not a number": [64, 66],
        "whose 'overall' or 'unixReviewTime' is out of range": [65],
        "without 'reviewerID'": [67],
        'longer than 1048576 bytes': [70],
    }


def test_literals_are_only_literals(tmp_path, recwarn):
    trap = tmp_path / 'trap'
    meta = [
        b"{'asin': '%s', 'title': open(%r, 'w')}" % (A.encode(), str(trap).encode()),
        b"{'asin': '%s', 'title': __import__('os').getcwd()}" % B.encode(),
        b"{'asin': '%s', 'title': 'a\\d', 'x': {[]: 1}}" % C.encode(),
        b"{'x': " + b'(' * 10_000,
        b"{'asin': '%s', 'price': %s}" % (C.encode(), b'[' * 150 + b'0x' + b'f' * 5000 + b']' * 150),
        b'{"asin": "%s", "title": "JSON"}' % C.encode(),
    ]
    write_2014(tmp_path, meta=meta)
    dataset = build(tmp_path, max_malformed=1, text_fields=['title', 'price'])
    assert not trap.exists()
    assert dataset[0]['item'].title == ['', '', 'JSON']
    assert dataset.provenance['report']['metadata']['malformed'] == 5
    assert [str(warning.message)[:15] for warning in recwarn] == ['left out: 5 of ']


@pytest.mark.parametrize('damage', ['cut', 'zeros', 'text'])
def test_damaged_gzip(tmp_path, damage):
    raw = write_2014(tmp_path)
    path = raw / 'meta_Baby.json.gz'
    content = path.read_bytes()
    if damage == 'cut':
        path.write_bytes(content[:-20])
    elif damage == 'zeros':
        path.write_bytes(content[:30] + bytes(50) + content[80:])
    else:
        path.write_text('{}')
    with pytest.raises(ValueError, match=r"'.*meta_Baby.json.gz' is cut short or damaged after line \d+ \(.*\): get"):
        build(tmp_path)
    assert not list(tmp_path.rglob('data.pt'))


def test_image_features(tmp_path):
    raw = write_2014(tmp_path)
    asins = [D, C, A, *(f'X{i:09d}' for i in range(600)), A]  # the first features of A count; B has none
    x = write_image_features(raw / 'image_features_Baby.b', asins)
    dataset = build(tmp_path, image_features=True)
    item = dataset[0]['item']
    assert modalities(dataset[0]) == ['image']
    assert item.x_image.dtype == torch.float32 and item.has_image.tolist() == [True, False, True]
    assert np.array_equal(item.x_image.numpy(), np.stack([x[2], np.zeros(4096), x[1]]).astype(np.float32))
    assert dataset.provenance['report']['items']['without features of image'] == 1

    path = raw / 'image_features_Baby.b'
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r'records of 16394 bytes \(got 9901975 bytes: it ends within record 604\)'):
        build(tmp_path, image_features=True)
    write_image_features(path, [D])
    with pytest.raises(ValueError, match='has features of none of the 3 items'):
        build(tmp_path, image_features=True)
    nan = np.full(4096, np.nan, dtype='<f4').tobytes()
    path.write_bytes(A.encode() + nan + content[16394 : 2 * 16394])
    dataset = build(tmp_path, image_features=True)
    assert dataset[0]['item'].has_image.tolist() == [False, False, True]
    assert dataset.provenance['report']['items']['with image features not finite'] == 1


def test_own_features(tmp_path):
    write_2014(tmp_path)
    text, image, mask = (tmp_path / name for name in ('text_feat.npy', 'image_feat.npy', 'image_mask.npy'))
    np.save(text, np.arange(6.0).reshape(3, 2))
    np.save(image, np.ones((3, 4), dtype=np.float16))
    np.save(mask, np.array([True, True, False]))
    paths = {'text': str(text), 'image': str(image)}
    data = build(tmp_path, features=paths, image_features=True)[0]  # no need for the published ones
    assert modalities(data) == ['image', 'text']
    assert data['item'].x_text.tolist() == [[0, 1], [2, 3], [4, 5]] and 'has_text' not in data['item']
    assert data['item'].x_image.sum(dim=1).tolist() == [4, 4, 0]
    assert data['item'].has_image.tolist() == [True, True, False]
    np.save(mask, np.array([1, 1, 0]))
    with pytest.raises(ValueError, match=r"'.*image_mask.npy' needs to be bool of shape \(3,\) \(got int64 of shape"):
        build(tmp_path, features=paths)
    np.save(text, np.ones((4, 2)))
    with pytest.raises(ValueError, match=r"'.*text_feat.npy' needs 3 rows, one for each item \(got 4\)"):
        build(tmp_path, features={'text': str(text)})
    with pytest.raises(FileNotFoundError, match=r"no '.*none.npy' \(argument 'features', modality 'text'\)"):
        build(tmp_path, features={'text': str(tmp_path / 'none.npy')})


def test_options(tmp_path):
    write_2014(tmp_path)
    first = build(tmp_path, duplicates='first')
    assert first[0][INTERACTS].rating.tolist() == [5] * 9
    high = build(tmp_path, min_rating=3)
    assert high[0][INTERACTS].time[2] == 1_400_000_002
    assert high.provenance['report']['interactions']['below min_rating'] == 1
    everything = build(tmp_path, k_core=0)
    assert everything[0]['item'].raw_id == [A, B, C, D] and everything[0]['item'].title[3] == 'not wanted'
    assert everything.provenance['report']['metadata']['skipped'] == 0
    with pytest.raises(ValueError, match=r"no interactions are left of 11 lines \('min_rating' None, 'k_core' 4; {'be"):
        build(tmp_path, k_core=4)
    with pytest.raises(ValueError, match="'duplicates' is 'error', and 1 interactions repeat"):
        build(tmp_path, duplicates='error')


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'version': '2015'}, r"'version' needs to be one of \['2014', '2018', '2023'\] \(got '2015'\)"),
        ({'name': 'babies'}, r"'name' needs to be one of \['baby', .* such as 'Toys_and_Games' \(got 'babies'\)"),
        ({'version': '2018'}, r"'name' needs to be one of \['sports', 'clothing', 'electronics'\] .*\(got 'baby'\)"),
        ({'name': '../Baby'}, r"\(got '../Baby'\)"),
        ({'k_core': -1}, r"'k_core' needs to be at least 0 \(got -1\)"),
        ({'max_malformed': 2}, r"'max_malformed' needs to be in \[0, 1\] \(got 2\)"),
        ({'text_fields': 'title'}, r"'text_fields' needs to be some of \['brand', .*\(got 'title'\)"),
        ({'text_fields': ['features']}, r"'text_fields' needs to be some of .*\(got \['features'\]\)"),
    ],
)
def test_arguments(tmp_path, kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(tmp_path, **kwargs)
    assert list(tmp_path.iterdir()) == []


def test_cache_and_provenance(tmp_path):
    raw = write_2014(tmp_path)
    first = build(tmp_path)
    time = Path(first.processed_paths[0]).stat().st_mtime_ns
    again = build(tmp_path)
    assert again.processed_dir == first.processed_dir and again.provenance == first.provenance
    assert Path(again.processed_paths[0]).stat().st_mtime_ns == time
    others = [build(tmp_path, **kwargs) for kwargs in ({'k_core': 2}, {'text_fields': ['title']}, {'min_rating': 1})]
    assert len({dataset.processed_dir for dataset in (first, *others)}) == 4
    path = raw / 'reviews_Baby_5.json.gz'
    file = first.provenance['files'][0]
    assert file == {
        'name': 'reviews_Baby_5.json.gz',
        'url': 'https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/reviews_Baby_5.json.gz',
        'bytes': path.stat().st_size,
        'sha256': hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    assert first.provenance['arguments']['text_fields'] == ['title', 'brand', 'categories', 'description']
    assert {path.name for path in Path(first.processed_dir).iterdir()} >= {'data.pt', 'provenance.json'}
    assert not list(tmp_path.rglob('*.tmp'))


def test_download(tmp_path, monkeypatch):
    urls = {'metadata': 'http://127.0.0.1:9/mirror/meta.gz'}
    message = r"can't download 'http://127.0.0.1:9/mirror/meta.gz'.*'meta_Baby.json.gz' elsewhere and put it into"
    monkeypatch.setattr('time.sleep', lambda seconds: None)
    raw = write_2014(tmp_path)
    (raw / 'meta_Baby.json.gz').unlink()
    with pytest.raises(ConnectionError, match=message):
        build(tmp_path, urls=urls)

    asked = []

    def download(url, path, checksum, progress):
        asked.append((url, path.name, checksum))
        if 'image' in path.name:
            write_image_features(path, [A, B, C])
        else:
            write_lines(path, [repr(row).encode() for row in META_2014])

    monkeypatch.setattr('lirdrec_pyg.datasets.amazon_reviews.download', download)
    data = build(tmp_path, image_features=True, urls=urls, checksums={'images': 'abc'})[0]
    assert asked == [
        ('http://127.0.0.1:9/mirror/meta.gz', 'meta_Baby.json.gz', None),
        ('https://snap.stanford.edu/data/amazon/productGraph/image_features/categoryFiles/image_features_Baby.b',
         'image_features_Baby.b', 'abc'),
    ]  # fmt: skip
    assert data['item'].title[0] == "Don't & Do" and 'has_image' not in data['item']


def test_urls_of_all_releases():
    urls = {
        (version, kind): url.format(release.names['sports'])
        for version, release in _amazon.RELEASES.items()
        for kind, url in release.urls.items()
    }
    assert len(urls) == 7
    assert urls['2018', 'reviews'].endswith('/amazon_v2/categoryFilesSmall/Sports_and_Outdoors_5.json.gz')
    assert urls['2018', 'metadata'].endswith('/amazon_v2/metaFiles2/meta_Sports_and_Outdoors.json.gz')
    assert urls['2023', 'reviews'].endswith('/amazon_2023/raw/review_categories/Sports_and_Outdoors.jsonl.gz')
    assert urls['2023', 'metadata'].endswith('/amazon_2023/raw/meta_categories/meta_Sports_and_Outdoors.jsonl.gz')


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        ('a <br/>b<!-- c -->d', 'a b d'),
        ('<script type="x">var a = "<b>";\n</script >new', 'new'),
        ('1 < 2 &lt;p&gt; &eacute;\u2028x\t\u00a0y', '1 < 2 <p> é x y'),
        ([['a', None], [1, ['b', {'c': 1}]], ''], 'a 1 b'),
        ('half \ud83d of a pair', 'half of a pair'),
        (None, ''),
        ([True, float('nan'), float('inf'), 2.5], 'inf 2.5'),
        ('a<!-- <b>hidden</b> -->b <STYLE>p {}</style\n>c<style >d</style>', 'a b c'),
        ('&#0000065;&#x1F600;&#99999999;', 'A😀\ufffd'),
        ('var aPageStart = (new Date()).getTime();\nvar ue_t0=ue_t0||+new Date();', ''),
        ('<a <a <a', '<a <a <a'),
    ],
)
def test_flatten(value, text):
    assert flatten(value) == text


HOSTILE = {
    'with a script, style or comment without an end': ['<script x ', '<style>', '<!-', '<script></style>', '<!---'],
    'with a character reference of more than 20 digits': ['&#' + '9' * 1_000_000, '&#x' + 'F' * 1_000_000],
    '': [
        '<a ',
        '</',
        '<a <a> ',
        '<script></script ',
        '<script></script>',
        '<!---->',
        '&#',
        '&amp',
        '<' * 10,
        'var getTime()',
    ],
}


@pytest.mark.parametrize('reason', HOSTILE)
def test_hostile_html_takes_linear_time(reason):
    for part in HOSTILE[reason]:
        text = (part * ((1 << 20) // len(part) + 1))[: 1 << 20]
        start = time.process_time()
        if reason and part != '<!-':
            with pytest.raises(_amazon.Malformed, match=reason):
                flatten(text)
        elif reason == '':
            with contextlib.suppress(_amazon.Malformed):  # cut in the middle
                flatten(text)
        assert time.process_time() - start < 2, part


def test_hostile_lines_are_malformed_and_counted(tmp_path, recwarn):
    meta = [
        {'asin': A, 'title': '<script x ' * 100_000},
        {'asin': A, 'title': 'x', 'description': '<style>' * 100_000},
        {'asin': A, 'title': '&#' + '9' * 1_000_000 + ';'},
        b'{"asin": "%s", "title": %s}' % (A.encode(), b'[' * 100_000 + b']' * 100_000),
        b"{'asin': '%s', 'title': %s}" % (A.encode(), b'[' * 100_000 + b']' * 100_000),
        b"{'asin': '%s', 'title': %s1}" % (A.encode(), b'-' * 1_000_000),
        b'{"asin": "%s", "title": %s}' % (A.encode(), b'[' * 900 + b'"deep"' + b']' * 900),
        b'x' * (3 << 20),
        {'asin': B, 'title': 'good'},
    ]
    write_2014(tmp_path, meta=meta)
    dataset = build(tmp_path, max_malformed=1, text_fields=['title', 'description'])
    found = dataset.provenance['report']['metadata']
    assert found['lines'] == 9 and found['malformed'] == 8
    assert found['reasons']['longer than 1048576 bytes'] == {'count': 1, 'first_lines': [8]}
    assert found['reasons']['with a script, style or comment without an end']['count'] == 2
    assert dataset[0]['item'].title[1] == dataset[0]['item'].text[1] == 'good'
    assert found['reasons']['nested too deeply'] == {'count': 1, 'first_lines': [7]}
    assert dataset[0]['item'].title[0] == ''


def test_a_line_without_an_end_is_refused_by_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(_amazon, 'LIMIT', 4 << 20)
    write_2014(tmp_path, meta=[b'{}', bytes(5 << 20)])
    with pytest.raises(ValueError, match=r"line 2 of '.*meta_Baby.json.gz' needs to be at most 4194304 bytes long"):
        build(tmp_path)


def test_refuses_names_that_modalities_can_not_have(tmp_path):
    with pytest.raises(ValueError, match='the name of a modality'):
        build(tmp_path, features={'../../evil': 'x.npy'})


def test_find_url():
    assert find_url(['', None, 'ftp://x', 'javascript:x', 'https://y']) == 'https://y'
    assert find_url({'thumb': 'http://t', 'large': 'http://l'}) == 'http://l'
    assert find_url([{'thumb': None}, {'thumb': 'http://t'}]) == 'http://t'
    assert find_url([]) is None and find_url(3) is None


def test_nothing_runs_what_it_reads():
    for path in Path(lirdrec_pyg.__file__).parent.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ('eval', 'exec'), path
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, 'module', None)}
                assert not names & {'pickle', 'dill', 'cloudpickle', 'joblib', 'marshal', 'shelve'}, path
            if isinstance(node, ast.keyword) and node.arg in ('trust_remote_code', 'allow_pickle'):
                assert isinstance(node.value, ast.Constant) and node.value.value is False, path
            if isinstance(node, ast.Attribute):
                assert node.attr not in ('extractall', 'unpack_archive'), path


@pytest.mark.parametrize('key', ['overall', 'unixReviewTime'])
def test_truth_values_are_no_numbers(tmp_path, key):
    write_2014(tmp_path, [*reviews(), review(1, A) | {key: True}])
    with pytest.warns(UserWarning, match='1 of 12 lines .* not a number'):
        build(tmp_path, max_malformed=0.1)


def test_image_features_that_are_too_large_to_sum(tmp_path):
    raw = write_2014(tmp_path)
    x = np.full((2, 4096), [[3e38], [1.0]], dtype='<f4')
    (raw / 'image_features_Baby.b').write_bytes(A.encode() + x[0].tobytes() + B.encode() + x[1].tobytes())
    dataset = build(tmp_path, image_features=True)
    assert dataset[0]['item'].has_image.tolist() == [False, True, False]
    assert dataset.provenance['report']['items']['with image features not finite'] == 1
