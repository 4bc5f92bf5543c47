"""The API reference can be built, holds every public name, and its links lead somewhere; so do those of the README."""

import html.parser
import inspect
import pathlib
import re

import pdoc
import pdoc.render
import pytest

import tf_evonorm
import tf_pixpro

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCUMENTS = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


class Page(html.parser.HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.anchors = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "a" and attrs.get("href"):
            self.links.add(attrs["href"])
        if attrs.get("id"):
            self.anchors.add(attrs["id"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The module specification")  # a package brings those of its modules that it names
def test_the_reference(tmp_path):
    files = [path.relative_to(ROOT) for name in ("tf_pixpro", "tf_evonorm") for path in (ROOT / name).rglob("*.py")]
    modules = {".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files}
    pdoc.render.configure(docformat="google")
    pdoc.pdoc(*sorted(modules), output_directory=tmp_path)
    pages = {path.relative_to(tmp_path): Page(path.read_text()) for path in tmp_path.rglob("*.html")}
    for package in (tf_pixpro, tf_evonorm):
        names = {name for name in package.__all__ if not inspect.ismodule(getattr(package, name))} - {"__version__"}
        assert names <= pages[pathlib.Path(f"{package.__name__}.html")].anchors
    broken = set()
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"\w+:", link):
                continue
            file, _, anchor = link.partition("#")
            target = (tmp_path / path.parent / file).resolve().relative_to(tmp_path.resolve()) if file else path
            # Inherited members are listed without an entry of their own, so the class must be there.
            owner = anchor.partition(".")[0]
            known = not anchor or owner.startswith("_") or owner in pages.get(target, page).anchors
            if target not in pages or not known:
                broken.add((str(path), link))
    assert not broken


def headings(text):
    """The anchors of a Markdown file's headings."""
    return {
        re.sub(r"[^\w\- ]", "", line.strip("# ").lower()).replace(" ", "-")
        for line in re.findall(r"^#+ .*", text, re.M)
    }


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_links_of_the_documents(name):
    page = ROOT / name
    links = [link for link in re.findall(r"\]\(([^)]+)\)", page.read_text()) if "://" not in link]
    for link in links:
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        assert not anchor or anchor in headings(target.read_text()), link
    assert links or name != "README.md"
