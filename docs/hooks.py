"""What mkdocs does to the pages of this folder before it renders them."""

import ast
import html
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

_ROOT = Path(__file__).parents[1]
# Pages of the site too, in small letters.
_PAGES_ABOVE = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")
_PLACE = "{{ configs/default.py }}"  # where a page wants every key


def on_files(files: Any, config: Any) -> None:
    """Add the pages that lie above this folder."""
    for name in _PAGES_ABOVE:
        content = (_ROOT / name).read_text()
        files.append(File.generated(config, name.lower(), content=content))


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Fill in the keys, and make links between files links between pages."""
    folder = "" if page.file.generated_by else "docs"

    def link(found: re.Match) -> str:
        image, text, path, anchor = found.groups()
        path = posixpath.normpath(posixpath.join(folder, path))
        if path in _PAGES_ABOVE:
            path = path.lower()
        elif path.startswith("docs/"):
            path = path.removeprefix("docs/")
        elif config.repo_url:
            path = f"{config.repo_url}/blob/main/{path}"
        else:  # the repository is not published: nowhere to lead to
            return text
        return f"{image}[{text}]({path}{anchor or ''})"

    if _PLACE in markdown:
        source = (_ROOT / "configs/default.py").read_text()
        markdown = markdown.replace(_PLACE, keys(source))
    return re.sub(
        r"(!?)\[([^\]]+)\]\((?!https?:)([^)#\s]+)(#[^)\s]*)?\)",
        link,
        markdown,
    )


def keys(source: str) -> str:
    """Return a table for each group of keys in the source of configs/default.py.

    A blank line parts groups. What is commented above a group's first key begins with
    its title and a full stop; the rest is about the group, or about the key where that
    has no comment beside it.
    """
    lines, parts = source.splitlines(), []
    for node in _assignments(source):
        key, value = node.targets[0].attr, ast.get_source_segment(source, node.value)
        above = _comment_above(lines, node.lineno - 1)
        beside = lines[node.end_lineno - 1].partition("  # ")[2]
        if not lines[node.lineno - 2 - len(above)].strip():
            title, _, rest = " ".join(above).partition(".")
            parts += ["", f"## {title}", ""]
            if beside and rest:
                parts += [_marked_up(rest.strip()), ""]
            parts += ["| key | default | what it is |", "|---|---|---|"]
            above = [] if beside else [rest.strip()]
        what = _marked_up(" ".join([*above, beside]).strip())
        parts.append(f"| `{key}` | `{value}` | {what} |")
    return "\n".join(parts).strip()


def _assignments(source: str) -> list[Any]:
    """Return every `config.<key> = <value>` in order."""
    return [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute)
    ]


def _comment_above(lines: list[str], i: int) -> list[str]:
    """Return the lines of the comment that ends above line `i`."""
    start = i
    while lines[start - 1].strip().startswith("#"):
        start -= 1
    return [line.strip().removeprefix("#").strip() for line in lines[start:i]]


def _marked_up(text: str) -> str:
    """Return a comment as Markdown: values, keys and paths as code."""
    code = r"\"[^\"]+\"|[\w./<>-]*[_<][\w./<>-]*[\w>]"
    pieces = re.split(f"({code})", text)
    return "".join(
        f"`{piece}`" if i % 2 else html.escape(piece, quote=False)
        for i, piece in enumerate(pieces)
    ).replace("|", r"\|")
