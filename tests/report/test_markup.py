from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from curate.report.markup import Markup, el, join
from curate.text import visible


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def read(markup: str) -> Reader:
    reader = Reader()
    reader.feed(markup)
    reader.close()
    return reader


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])), st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_a_browser_reads_back_any_text_and_any_attribute_as_it_looks(text: str, title: str) -> None:
    found = read(el("p", text, title=title))
    assert found.text == visible(text)
    assert found.tags == [("p", {"title": visible(title)})]


def test_markup_within_markup_is_not_escaped_again() -> None:
    assert el("p", el("b", "1 < 2"), [" & ", None, 3]) == "<p><b>1 &lt; 2</b> &amp; 3</p>"
    assert isinstance(join(["a", el("br")]), Markup)


def test_attribute_names_follow_html() -> None:
    assert el("text", class_="a", font_size=3, id=None) == '<text class="a" font-size="3"></text>'


def test_void_elements_have_no_end_tag() -> None:
    assert el("img", src="x") == '<img src="x">'
