"""The pages of ``make docs``: every public module has one, no link is dead, nothing is broken."""

import re

import make_docs
import pytest

import qbhkit


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """All pages, made once; pdoc's warnings are errors, and so are dead links."""
    out = tmp_path_factory.mktemp("docs")
    make_docs.make(out)
    return out


def test_every_public_module_has_its_page(pages):
    names = make_docs.public_modules()
    assert "qbhkit.retrieval.searcher" in names
    assert not any("._" in name for name in names)
    for name in names:
        assert (pages / f"{name.replace('.', '/')}.html").is_file()
        assert name == "qbhkit" or f">{name}</a>" in (pages / "qbhkit.html").read_text("utf-8")


def test_shapes_sources_and_notebooks_are_on_the_page(pages):
    page = (pages / "qbhkit/embedding/encoders.html").read_text("utf-8")
    text = " ".join(re.sub(r"<[^>]+>", "", page).split())
    assert "Contour (B, L, 2) to vector (B, embedding_dim)" in text
    assert 'Source: fixed facts, "Embedding network"' in text
    assert '<a href="../../notebooks/05_encoder_and_loss.html">' in page
    assert f'href="../../{make_docs.FACTS}"' in page


def test_the_fields_of_a_named_tuple_have_their_shapes(pages):
    page = (pages / "qbhkit/retrieval/index.html").read_text("utf-8")
    assert "(Q, k) cosines; -1 where there are fewer windows" in page
    assert not any("Alias for field" in path.read_text("utf-8") for path in pages.rglob("*.html"))


def test_the_linked_facts_are_there(pages):
    page, fragment = make_docs.FACTS.split("#")
    assert f'id="{fragment}"' in (pages / page).read_text("utf-8")


def test_no_markup_is_left_over(pages):
    for page in (pages / "qbhkit").rglob("*.html"):
        text = re.sub(
            r"<pre>.*?</pre>|<code>.*?</code>", "", page.read_text("utf-8"), flags=re.DOTALL
        )
        assert not re.search(r":(?:func|class|mod|meth):", text), page.name
        assert "``" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL), page.name
    assert "__all__" in vars(qbhkit)  # the package is as it was


def test_notebooks_lead_to_pages(pages):
    page = (pages / "notebooks/06_train_self_supervised.html").read_text("utf-8")
    assert 'href="07_train_supervised.html"' in page
    assert 'href="../qbhkit/training_loop.html#generator"' in page
    assert ".ipynb" not in re.findall(r'href="([^"]*)"', page)


def test_a_dead_link_is_found(tmp_path):
    (tmp_path / "page.html").write_text(
        '<a href="gone.html#there">x</a> <a href="page.html?q#here">y</a> <a href="#lost">z</a>'
        '<p id="here"><a href="https://example.org/gone.html">w</a>'
    )
    found = ["page.html links to #lost", "page.html links to gone.html#there"]
    assert list(make_docs.dead_links(tmp_path)) == found
