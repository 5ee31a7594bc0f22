"""What mkdocs does to the pages of this folder before it renders them."""

import ast
import html
import re
from pathlib import Path
from typing import Any

_DEFAULTS = Path(__file__).parents[1] / "configs/default.py"
_PLACE = "{{ configs/default.py }}"  # where a page wants every key


def on_page_markdown(markdown: str, config: Any, **_: Any) -> str:
    """Fill in the keys, and lead links to files that are no pages to the repository."""

    def link(found: re.Match) -> str:
        text, path = found.groups()
        # Nowhere to lead to as long as the repository is not published.
        repo = config.repo_url
        return f"[{text}]({repo}/blob/main/{path})" if repo else text

    if _PLACE in markdown:
        markdown = markdown.replace(_PLACE, keys(_DEFAULTS.read_text()))
    return re.sub(r"(?<!!)\[([^\]]+)\]\(\.\./([^)]+)\)", link, markdown)


def keys(source: str) -> str:
    """Return a table for each group of keys in the source of configs/default.py.

    A blank line parts groups. What is commented above a group's first key begins with
    its title and a full stop; the rest is about the group, or about the key where that
    has no comment beside it.
    """
    lines, parts = source.splitlines(), []
    for node in _assignments(source):
        key, value = node.targets[0].attr, ast.unparse(node.value)
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
