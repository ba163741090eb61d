r"""Opens the page of recommendations in Chromium, and uses it as people do."""

import io
import os
import shutil

import pytest
from torch_geometric.transforms import Compose

from lirdrec_pyg import LIRDRec, fit, report
from lirdrec_pyg.datasets import FakeMultimodal
from lirdrec_pyg.transforms import DCT, FixedSplit, InteractionGraph, ItemKNNGraph
from lirdrec_pyg.typing import ITEM

pytestmark = pytest.mark.browser
HOSTILE = '</script><script>document.title = "taken"</script><img src=x onerror="document.title = 1">'


@pytest.fixture(scope='module')
def path(tmp_path_factory):
    Image = pytest.importorskip('PIL.Image')
    folder = tmp_path_factory.mktemp('report')
    (folder / 'pictures').mkdir()
    for i in range(1, 48):
        Image.new('RGB', (200, 300), (250, 5 * i, 0)).save(folder / 'pictures' / f'item-{i}.png')
    (folder / 'pictures' / 'item-1.png').write_bytes(b'no picture')
    data = Compose([DCT(), ItemKNNGraph(k=4)])(FakeMultimodal(seed=1, num_cold_items=6)[0])
    data[ITEM].title = [HOSTILE, *(f'Café {i}' if i % 2 else f'A rather long title of item {i}' for i in range(1, 48))]
    train, val, test = FixedSplit()(data)
    train = InteractionGraph()(train)
    model = LIRDRec.from_data(train, seed=0, hidden_channels=4)
    log = fit(model, train, val, epochs=3, seed=0)
    users, items = [f'user-{i}' for i in range(8)], [f'item-{i}' for i in range(6)]
    with pytest.warns(UserWarning, match='could not be read'):
        return report(model, train, folder / 'a.html', split=test, log=log, users=users, items=items,
                      images=folder / 'pictures')  # fmt: skip


@pytest.fixture(scope='module')
def browser():
    sync_api = pytest.importorskip('playwright.sync_api')
    chromium = os.environ.get('CHROMIUM') or shutil.which('chromium')
    assert chromium, 'Chromium is needed: apt-get install chromium, or set CHROMIUM to the path of one'
    with sync_api.sync_playwright() as playwright:
        root = ['--no-sandbox'] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=chromium, args=root)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, path):
    r"""Returns a function that opens the page. Whatever it asks for or complains about fails the test."""
    contexts, wrong = [], []

    def go(width=1200, height=900, **kwargs):
        contexts.append(browser.new_context(viewport={'width': width, 'height': height}, **kwargs))
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        page.on('console', lambda message: wrong.append(message.text))
        page.on('pageerror', lambda error: wrong.append(str(error)))
        page.on('request', lambda one: wrong.append(one.url) if not one.url.startswith(('file:', 'data:')) else None)
        page.goto(path.as_uri())
        return page

    yield go
    for context in contexts:
        context.close()
    assert wrong == []


def colors(page, selector):
    r"""Returns the mean colour of what is seen of an element."""
    from PIL import Image

    image = Image.open(io.BytesIO(page.locator(selector).first.screenshot())).convert('RGB').resize((1, 1))
    return image.getpixel((0, 0))


def test_shows_pictures_and_runs_no_title(opened):
    page = opened()
    assert page.title() == 'Recommendations to look at'
    assert page.get_by_text(HOSTILE).count() > 0
    red, green, blue = colors(page, 'svg.picture[aria-label="Picture of Café 25"]')
    assert red > 200 and abs(green - 125) < 40 and blue < 80
    assert page.locator('.picture.none').count() > 0


@pytest.mark.parametrize(('width', 'height'), [(1200, 900), (390, 844), (320, 568)])
def test_fits_the_screen(opened, width, height):
    page = opened(width, height)
    assert page.evaluate('document.documentElement.scrollWidth') <= width
    small = """[...document.querySelectorAll('main *')].filter(one => one.childElementCount === 0 && one.innerText
        && one.getClientRects().length && parseFloat(getComputedStyle(one).fontSize) < 12).length"""
    assert page.evaluate(small) == 0
    over = """[...document.querySelectorAll('.tile, .chart, .card')].filter(one => one.getClientRects().length
        && one.getBoundingClientRect().right > innerWidth).length"""
    assert page.evaluate(over) == 0


def test_tiles_of_a_row_are_aligned(opened):
    page = opened()
    tops = page.evaluate("""[...document.querySelectorAll('.big')].map(list => [...list.children].map(tile =>
        [tile, '.title', '.foot'].map(part => Math.round((part.getBoundingClientRect ? part
            : tile.querySelector(part)).getBoundingClientRect().top))))""")
    for tiles in tops:
        for row in {tile[0] for tile in tiles}:
            same = [tile for tile in tiles if tile[0] == row]
            assert all(max(tops) - min(tops) <= 1 for tops in zip(*same, strict=True)), same


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_text_has_contrast(opened, scheme):
    page = opened(color_scheme=scheme)
    ratios = page.evaluate("""() => {
      const channel = x => (x /= 255) <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
      const light = color => { const [r, g, b] = color.match(/[\\d.]+/g).map(Number);
        return .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b); };
      const paper = one => { for (; one; one = one.parentElement) { const color = getComputedStyle(one).backgroundColor;
        if (!/, 0\\)$/.test(color)) return color; } return 'rgb(255, 255, 255)'; };
      const out = {};
      for (const one of document.querySelectorAll('body *')) {
        if (one.closest('svg, script, style') || !one.innerText || one.childElementCount > 0) continue;
        const [a, b] = [light(getComputedStyle(one).color), light(paper(one))].sort((x, y) => y - x);
        const ratio = (a + .05) / (b + .05), name = one.tagName + '.' + one.className;
        out[name] = Math.min(out[name] ?? 99, ratio);
      }
      return out; }""")
    assert len(ratios) > 15
    assert {name: ratio for name, ratio in ratios.items() if ratio < 4.5} == {}
    body = page.evaluate('getComputedStyle(document.body).backgroundColor')
    assert (body == 'rgb(21, 23, 26)') == (scheme == 'dark')


def test_search_by_keyboard(opened):
    page = opened()
    cards = page.locator('[data-card]')
    count = cards.count()
    page.keyboard.press('/')
    assert page.evaluate('document.activeElement.id') == 'search'
    page.keyboard.type('USER-3')
    assert page.locator('[data-card]:visible').count() == 1
    assert page.locator('#found').inner_text().startswith(f'1 of {count} cards')
    page.keyboard.press('Escape')
    assert page.locator('[data-card]:visible').count() == count and page.locator('#found').inner_text() == ''
    page.keyboard.type('cafe 25')  # without the accent
    marked = page.locator('.marked-tile:visible')
    assert marked.count() > 0
    assert {text.split('\n')[0] for text in marked.locator('.title').all_inner_texts()} == {'Café 25'}
    page.keyboard.press('Escape')
    page.keyboard.type('of which there is none')
    assert page.locator('[data-card]:visible').count() == 0
    assert page.locator('#found').inner_text() == 'Nothing on this page fits.'
    page.keyboard.press('Enter')
    assert page.locator('[data-card]:visible').count() == 0


def test_all_is_reached_by_keyboard_and_focus_is_seen(opened):
    page = opened()
    page.keyboard.press('Tab')
    assert page.evaluate('document.activeElement.className') == 'skip'
    assert page.locator('.skip').bounding_box()['y'] >= 0
    names = []
    for _ in range(60):
        page.keyboard.press('Tab')
        tag, name, style = page.evaluate("""(() => { const one = document.activeElement;
            return [one.tagName, one.innerText || one.id, getComputedStyle(one).outlineStyle]; })()""")
        if tag == 'BODY':
            break
        names.append(name)
        assert style != 'none', name
    shown = ' '.join(names)
    for name in ('Settings of the model', 'Users', 'Training', 'search', 'The numbers'):
        assert name in shown
    page.locator('.chart summary').first.focus()
    page.keyboard.press('Enter')
    assert page.locator('.chart table').first.is_visible()


def test_screen_readers_find_their_way(opened):
    page = opened()
    for role in ('banner', 'navigation', 'main', 'search', 'contentinfo'):
        assert page.get_by_role(role).count() == 1, role
    assert page.get_by_role('heading', level=1).count() == 1
    assert page.get_by_role('article').count() == 8 + 6
    assert page.get_by_role('searchbox', name='Search').count() == 1
    assert page.get_by_role('img', name='Loss in training').count() == 1
    assert page.get_by_role('list', name='What is recommended to user user-3').get_by_role('listitem').count() == 10


def test_reads_without_scripts(opened):
    page = opened(java_script_enabled=False)
    assert not page.get_by_role('searchbox').is_visible()
    assert page.get_by_text('User user-3').is_visible()
