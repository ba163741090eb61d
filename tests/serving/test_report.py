import builtins
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
import torch
from torch_geometric.transforms import Compose

from lirdrec_pyg import LightGCN, LIRDRec, Popularity, evaluate, fit, recommend
from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.serving import explain, report
from lirdrec_pyg.serving._charts import Series, chart, number, thinned
from lirdrec_pyg.transforms import DCT, FixedSplit, InteractionGraph, ItemKNNGraph
from lirdrec_pyg.typing import INTERACTS, ITEM, USER

Image = pytest.importorskip('PIL.Image')
HOSTILE = '</script><script>document.title = "taken"</script><img src=x onerror="alert(1)">'
VOID = {'meta', 'input', 'br', 'img', 'link'}


class Outline(HTMLParser):
    r"""What a page is made of. Refuses tags that are not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open, self.tags, self.ids, self.text = [], [], [], ''
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == 'id']
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data if self.open and self.open[-1] not in ('style', 'script') else ''

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope='module')
def made():
    r"""Splits with six new items, a model and its run."""
    data = Compose([DCT(), ItemKNNGraph(k=4)])(FakeMultimodal(seed=1, num_cold_items=6)[0])
    train, val, test = FixedSplit()(data)
    train = InteractionGraph()(train)
    model = LIRDRec.from_data(train, seed=0, hidden_channels=4)
    return model, train, test, fit(model, train, val, epochs=3, seed=0)


@pytest.fixture
def pictures(tmp_path):
    r"""A folder with pictures of all items but item-0, of which that of item-1 is broken."""
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for i in range(1, 48):
        Image.new('RGB', (200, 300), (5 * i, 100, 100)).save(folder / f'item-{i}.png')
    (folder / 'item-1.png').write_bytes(b'no picture')
    return folder


def page(*args, **kwargs):
    return report(*args, **kwargs).read_text('utf-8')


def test_shows_what_the_library_says(made, tmp_path):
    model, train, test, result = made
    html = page(model, train, tmp_path / 'a.html', split=test, users=['user-3'], items=['item-5'], k=4, log=result)
    outline = Outline(html)
    text = ' '.join(outline.text.split())
    best = recommend(model(train), train, ['user-3'], k=4)
    shown = re.search(r'aria-label="What is recommended to user user-3">(.*?)</ol>', html, re.S)[1]
    assert re.findall(r'data-find="[^"]* (item-\d+)"', shown) == best['item'].tolist()
    assert [float(x) for x in re.findall(r'score </span>([\d.]+)', shown)] == pytest.approx(best['score'], abs=0.01)
    why = explain(model, train, best)
    near = re.findall(r'near <b><bdi>(.*?)</bdi>', shown)
    assert near == [titles[0] for titles in why['because_title']]
    views = {name: why[f'from_{name}'] + why[f'from_{name}_neighbours'] for name in ('image', 'text', 'shared')}
    for name, part in views.items():
        share = part / sum(abs(one) for one in views.values())
        found = re.findall(rf'{name} </span>(−?\d+)', shown)
        assert [int(x.replace('−', '-')) for x in found] == pytest.approx((100 * share).to_numpy(), abs=0.51)
    held_out = test[INTERACTS].edge_label_index
    raw = [train[ITEM].raw_id[i] for i in held_out[1][held_out[0] == 3].tolist()]
    assert shown.count('✓') == sum(item in raw for item in best['item'])
    for name, one in [('LIRDRec', model), ('Popularity', Popularity())]:
        metrics = evaluate(one(train), test, 4, ['recall', 'ndcg', 'hit', 'coverage'])
        row = re.search(rf'<th scope="row">{name}</th>(.*?)</tr>', html)[1]
        found = re.findall(r'<td[^>]*>([\d.]+)', row)[:4]
        assert found == [f'{metrics[f"{key}@4"]:.4f}' for key in ('recall', 'ndcg', 'hit')] + [
            f'{100 * metrics["coverage@4"]:.1f}'
        ]
    cosine = torch.cosine_similarity(train[ITEM].x_image[5:6], train[ITEM].x_image)
    cosine[5] = -2
    nearest = re.search(r'aria-label="By image, nearest to item 5 [^>]*">(.*?)</ul>', html, re.S)[1]
    assert re.findall(r'data-find="item (\d+) ', nearest) == [str(i) for i in cosine.topk(6).indices.tolist()]
    assert '6 items have no interactions in training' in text
    assert f'epoch {result.best_epoch}' in text and '3 epochs' in text


def test_history_starts_with_the_latest(made, tmp_path):
    model, train, *_ = made
    html = page(model, train, tmp_path / 'a.html', users=['user-3'], items=0, k=4)
    edge = (train[INTERACTS].edge_index[0] == 3).nonzero().view(-1)
    edge = edge[train[INTERACTS].time[edge].argsort(descending=True)]
    shown = re.search(r'aria-label="What user user-3 chose">(.*?)</ul>', html, re.S)[1]
    assert re.findall(r'data-find="item (\d+) ', shown) == [
        str(i) for i in train[INTERACTS].edge_index[1][edge].tolist()
    ]


def test_places_of_new_items_equal_brute_force(made, tmp_path):
    model, train, *_ = made
    html = page(model, train, tmp_path / 'a.html', users=0, items=0, k=4)
    z = model(train)
    score = z.user @ z.item.t()
    score[tuple(train[INTERACTS].edge_index)] = float('-inf')
    place = 48 - score.argsort(dim=1).argsort(dim=1)
    for item in range(42, 48):
        tile = re.search(rf'data-find="item {item} .*?</li>', html, re.S)[0]
        count, best = int((place[:, item] <= 4).sum()), int(place[:, item].min())
        lists = 'list' if count == 1 else 'lists'
        assert f'in {count} {lists} of 4<' in tile if count else f'best place {best}<' in tile
        middle = place[:, item].double().quantile(0.5).round()
        assert f'middle place {middle:.0f}<' in tile


def test_equal_input_gives_equal_bytes(made, pictures, tmp_path):
    model, train, test, result = made
    pages = []
    for i in range(2):
        with pytest.warns(UserWarning, match=r"pictures could not be read .*'item-1'"):
            path = report(model, train, tmp_path / f'{i}.html', split=test, log=result, images=pictures)
        pages.append(path.read_bytes())
    assert pages[0] == pages[1]
    assert model.training is False


def test_is_one_file_that_can_be_navigated(made, pictures, tmp_path):
    model, train, test, result = made
    with pytest.warns(UserWarning):
        html = page(model, train, tmp_path / 'a.html', split=test, log=result, images=pictures, items=['item-1'])
    outline = Outline(html)
    assert len(outline.ids) == len(set(outline.ids))
    addresses = [a[key] for _, a in outline.tags for key in ('href', 'src', 'action') if key in a]
    assert all(one.startswith(('#', 'data:image/jpeg;base64,')) for one in addresses)
    assert all(one[1:] in outline.ids for one in addresses if one.startswith('#'))
    assert 'url(' not in html and '@import' not in html and "default-src 'none'" in html.replace('&#39;', "'")
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch('h[1-6]', tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for tag in ('main', 'nav', 'header', 'footer', 'form'):
        assert len(outline.all(tag)) == 1
    for attrs in outline.all('svg'):
        assert attrs.get('aria-hidden') or attrs.get('aria-label') or attrs.get('aria-labelledby')
    refs = [name for _, attrs in outline.tags for key in ('aria-labelledby', 'aria-describedby', 'for')
            for name in (attrs.get(key) or '').split()]  # fmt: skip
    assert refs and set(refs) <= set(outline.ids)
    assert len(outline.all('table')) == 1 + len(outline.all('figure'))


def test_pictures_are_held_once_and_small(made, pictures, tmp_path):
    model, train, *_ = made
    with pytest.warns(UserWarning):
        html = page(model, train, tmp_path / 'a.html', users=20, items=20, images=pictures)
    urls = re.findall(r'data:image/jpeg;base64,[\w+/=]+', html)
    assert len(urls) == len(set(urls)) == 46  # all but the missing and the broken one
    assert html.count('href="#p') > 200
    assert '46 pictures; 1 items have none; 1 could not be read' in html
    assert 'no picture' in html
    some = {'item-2': pictures / 'item-2.png', 'item-3': None}
    for images in (some, lambda raw: some.get(raw)):
        html = page(model, train, tmp_path / 'a.html', users=20, items=20, images=images)
        assert html.count('data:image/jpeg') == 1
    with pytest.warns(UserWarning, match="'images' has no picture of the"):
        page(model, train, tmp_path / 'a.html', images={})


def test_titles_do_no_harm(made, tmp_path):
    model, train, *_ = made
    train = train.clone()
    titles = [HOSTILE] * 48
    titles[1], titles[2], titles[3] = 'x' * 10_000, '\ud800\x00\x1b', None
    train[ITEM].title = titles
    train[USER].raw_id = [f'"><b>{one}' for one in train[USER].raw_id]
    model = LightGCN.from_data(train, hidden_channels=4)
    html = page(model, train, tmp_path / 'a.html', users=20, items=20, title=HOSTILE)
    outline = Outline(html)
    assert len(outline.all('script')) == 1 and outline.all('img') == [] and outline.all('b') != []
    assert 'onerror="' not in html
    assert HOSTILE in outline.text
    assert 'x' * 200 not in html and '\x00' not in html
    assert 'Item item-2' in outline.text and 'Item item-3' in outline.text


def test_shows_data_without_content_ids_titles_or_labels(made, tmp_path):
    _, train, *_ = made
    train = train.clone()
    for key in ('raw_id', 'title', 'x_image', 'x_text', 'spectrum'):
        for kind in (USER, ITEM):
            if key in train[kind]:
                del train[kind][key]
    model = LightGCN.from_data(train, hidden_channels=4)
    html = page(model, train, tmp_path / 'a.html', users=[3], items=[5])
    text = ' '.join(Outline(html).text.split())
    assert 'User 3' in text and 'Item 5' in text and 'Content</dt><dd>none' in html
    assert 'By the model' in text and 'Content kNN' not in text
    assert 'no held-out split was given' in text


def test_candidates_and_counted_users(made, tmp_path):
    model, train, test, _ = made
    warm = torch.arange(48) < 42
    html = page(model, train, tmp_path / 'a.html', split=test, users=20, items=0, candidates=warm, max_users=10)
    best = re.findall(r'aria-label="What is recommended to user .*?</ol>', html, re.S)
    assert len(best) == 20
    assert all(int(i) < 42 for one in best for i in re.findall(r'data-find="item (\d+) ', one))
    assert '10 users, drawn from 64' in html
    assert 'None of them may be recommended' in html


def test_compares_with_models_by_name(made, tmp_path):
    model, train, test, _ = made
    other = LightGCN.from_data(train, hidden_channels=4)
    html = page(model, train, tmp_path / 'a.html', split=test, compare={'Ours': model, 'LightGCN': other})
    names = re.findall(r'<th scope="row">(\D+?)</th>', html)
    assert names == ['Ours', 'LightGCN', 'Popularity', 'Content kNN']
    with pytest.raises(ValueError, match=r"'compare' needs another name than that of the model \(got 'LIRDRec'\)"):
        report(model, train, tmp_path / 'b.html', compare={'LIRDRec': other})


def test_many_items_make_no_large_page(tmp_path):
    torch.manual_seed(0)
    data = FakeMultimodal(num_users=20, num_items=100_000, widths={'text': 2}, num_cold_items=50_000)[0]
    train, _, _ = FixedSplit()(data)
    train = InteractionGraph()(train)
    path = report(LightGCN.from_data(train, hidden_channels=2), train, tmp_path / 'a.html')
    assert path.stat().st_size < 300_000


@pytest.mark.parametrize(
    ('kwargs', 'error', 'message'),
    [
        ({'k': 0}, ValueError, r"'k' needs to be in \[1, 48\] \(got 0\)"),
        ({'users': 101}, ValueError, r"'users' needs to be ids, or a number in \[0, 100\] \(got 101\)"),
        ({'items': ['item-1'] * 101}, ValueError, r"'items' needs to be at most 100 ids \(got 101\)"),
        ({'users': ['nobody']}, ValueError, r"unknown user ids \(got 1, first: 'nobody'\)"),
        ({'images': 'nowhere'}, FileNotFoundError, r"'images' needs to be a folder that is there \(got 'nowhere'\)"),
        ({'images': ['a.jpg']}, TypeError, r"'images' needs to be a folder, a mapping .* \(got a sequence\)"),
        ({'log': 'log.csv'}, TypeError, r"'log' needs to be what `fit` returns, or its `log` \(got a str\)"),
        ({'compare': {'x': 1}}, TypeError, r"'compare' needs to hold models \(got a int for 'x'\)"),
        ({'candidates': torch.ones(3, dtype=torch.bool)}, ValueError, "'candidates' needs to be a bool mask"),
        ({'max_users': 0}, ValueError, r"'max_users' needs to be in"),
    ],
)
def test_refuses_what_does_not_fit(made, tmp_path, kwargs, error, message):
    model, train, *_ = made
    with pytest.raises(error, match=message):
        report(model, train, tmp_path / 'a.html', **kwargs)
    assert not (tmp_path / 'a.html').exists()


def test_refuses_what_is_no_model(made, tmp_path):
    model, train, *_ = made
    with pytest.raises(TypeError, match=r"'model' needs to be a Recommender: .* \(got a Embeddings\)"):
        report(model(train), train, tmp_path / 'a.html')


def test_says_what_to_install(made, tmp_path, monkeypatch):
    model, train, *_ = made
    plain = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split('.')[0] in lacking:
            raise ImportError(name)
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', without)
    lacking = ['PIL']
    with pytest.raises(ImportError, match=r"pip install 'lirdrec-pyg\[report\]'"):
        report(model, train, tmp_path / 'a.html', images={})
    lacking = ['jinja2']
    with pytest.raises(ImportError, match='pip install jinja2'):
        report(model, train, tmp_path / 'a.html')


def test_charts_keep_their_points():
    one = chart('a', 'A', 'It grows.', [Series('m', 'c0', [1, 2, 3], [0.0, float('nan'), 0.5])], 'x', 'y')
    assert one.lines[0].path == f'M46,{246 - 38} 388,28'
    assert [tick.text for tick in one.y_ticks] == ['0', '0.1', '0.2', '0.3', '0.4', '0.5']
    assert one.rows == [['1', '0'], ['3', '0.500']]
    assert chart('a', 'A', '', [Series('m', 'c0', [1.0], [float('inf')])], 'x', 'y') is None
    assert chart('a', 'A', '', [Series('m', 'c0', [7], [7.0])], 'x', 'y', from_zero=False) is not None
    assert thinned(range(101), 3) == [0, 50, 100]
    assert [number(x) for x in (0, 6.1367, -0.01234, 1234.5, 1e-9, float('nan'))] == [
        '0', '6.14', '−0.0123', '1,234', '1e−09', '–'
    ]  # fmt: skip
