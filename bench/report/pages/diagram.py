"""A network's architecture as an SVG picture, narrow enough for a phone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from bench.networks.graph import Block, Fork, Network

WIDTH = 320
# For a separate file; on a page, the style sheet colours it for light and dark.
_STYLE = """
text { font: 11px sans-serif; fill: #1a1d21; }
.shape, .label { fill: #595f69; }
.name, .count { font-weight: bold; }
.block, .flow { fill: none; stroke: #b5bac2; }
.operation { fill: #f3f5f8; stroke: #b5bac2; }
.head { fill: #595f69; }
.shortcut { fill: none; stroke: #0b5cad; stroke-width: 1.8; }
.join { fill: #fff; stroke: #0b5cad; stroke-width: 1.5; }
.label { paint-order: stroke; stroke: #fff; stroke-width: 4px; stroke-linejoin: round; }
"""
_LEFT, _RIGHT = 6, WIDTH - 6
_LINE, _GAP = 20, 8  # height of a line of operations, and of the gap between two
_MIDDLE = 110  # x of the branch
_BOX = 196  # width of a line's box
_SHORTCUT = 262  # x of the shortcut
_HEAD = 22  # height of a block's name and shape
_ARC = 10  # radius of a shortcut's corners
_CHARACTERS = 15  # that fit beside the branch
_JOIN = 9  # half the height of a join


@dataclass
class _Canvas:
    """An SVG element, filled from top to bottom."""

    svg: ET.Element
    y: float = 4.0
    words: list[str] = field(default_factory=list)

    def add(self, tag: str, parent: ET.Element | None = None, **attributes: object) -> ET.Element:
        names = {k.rstrip("_").replace("_", "-"): _spell(v) for k, v in attributes.items()}
        return ET.SubElement(self.svg if parent is None else parent, tag, names)

    def text(self, text: str, x: float, y: float, *, class_: str = "", anchor: str = "") -> None:
        given = {"class_": class_, "text_anchor": anchor}
        kept = {name: value for name, value in given.items() if value}
        self.add("text", None, x=x, y=y, **kept).text = text


def draw(network: Network, key: str, title: str, *, alone: bool = False) -> str:
    """Return a network as an SVG picture, with every text escaped.

    Args:
        network: the network.
        key: id of the picture's title and prefix of its description's, unique on a page.
        title: title of the picture.
        alone: whether it is a separate file, with its own colours.

    Returns:
        An `svg` element, 320 px wide.
    """
    svg = ET.Element(
        "svg", {"class": "network", "role": "img", "aria-labelledby": f"{key} {key}-d"}
    )
    ET.SubElement(svg, "title", {"id": key}).text = title
    description = ET.SubElement(svg, "desc", {"id": f"{key}-d"})
    if alone:
        svg.set("xmlns", "http://www.w3.org/2000/svg")
        ET.SubElement(svg, "style").text = _STYLE
    canvas = _Canvas(svg)
    _flow(canvas, f"input {shape_text(network.input_shape)}")
    for block in network.blocks:
        _draw_block(canvas, block)
    description.text = describe(network)
    height = canvas.y + 4
    svg.set("viewBox", f"0 0 {WIDTH} {_spell(height)}")
    svg.set("width", str(WIDTH))
    svg.set("height", _spell(height))
    return ET.tostring(svg, encoding="unicode")


def describe(network: Network) -> str:
    """Describe the diagram in words, for screen readers."""
    parts = [f"Input {shape_text(network.input_shape)}."]
    for block in network.blocks:
        times = f", {block.count} times" if block.count > 1 else ""
        inside = "; ".join(_words(part) for part in block.parts)
        parts.append(f"{block.name}{times}: {inside}; gives {shape_text(block.shape)}.")
    return " ".join(parts)


def shape_text(shape: tuple[int, ...]) -> str:
    """Format a shape: 64×56×56."""
    return "×".join(map(str, shape))


def _words(part: str | Fork) -> str:
    if isinstance(part, str):
        return part
    paths = " and ".join(", ".join(path) or "identity" for path in part.shortcuts)
    return f"{', '.join(part.branch)}; joined ({part.join}) with the shortcut: {paths}"


def _flow(canvas: _Canvas, text: str) -> None:
    canvas.text(text, _MIDDLE, canvas.y + 12, class_="shape", anchor="middle")
    canvas.y += 18


def _draw_block(canvas: _Canvas, block: Block) -> None:
    top = canvas.y + _GAP
    _arrow(canvas, canvas.y, top)
    frame = canvas.add("rect", class_="block", x=_LEFT, y=top, width=_RIGHT - _LEFT, rx=6)
    last = f"{block.name} and the {block.count - 1} after it" if block.count > 1 else block.name
    canvas.add("title", frame).text = last
    canvas.text(block.name, _LEFT + 8, top + 15, class_="name")
    canvas.text(shape_text(block.shape), _RIGHT - 8, top + 15, class_="shape", anchor="end")
    if block.count > 1:
        x = (_LEFT + _RIGHT) / 2
        canvas.text(f"× {block.count}", x, top + 15, class_="count", anchor="middle")
    canvas.y = top + _HEAD
    for number, part in enumerate(block.parts):
        if number:
            _arrow(canvas, canvas.y, canvas.y + _GAP)
            canvas.y += _GAP
        if isinstance(part, str):
            _draw_line(canvas, part)
        else:
            _draw_fork(canvas, part)
    canvas.y += _GAP
    frame.set("height", _spell(canvas.y - top))


def _draw_line(canvas: _Canvas, text: str) -> None:
    canvas.add(
        "rect", class_="operation", x=_MIDDLE - _BOX / 2, y=canvas.y, width=_BOX, height=_LINE, rx=3
    )
    canvas.text(text, _MIDDLE, canvas.y + 14, anchor="middle")
    canvas.y += _LINE


def _draw_fork(canvas: _Canvas, fork: Fork) -> None:
    start = canvas.y
    canvas.y += _GAP
    _arrow(canvas, start, canvas.y)
    for number, text in enumerate(fork.branch):
        if number:
            _arrow(canvas, canvas.y, canvas.y + _GAP)
            canvas.y += _GAP
        _draw_line(canvas, text)
    label = _fitting(fork.shortcuts)
    room = 14 * len(label) + 2 * _ARC + 8
    bottom = canvas.y
    canvas.y = max(canvas.y, start + room)  # the label must fit beside the branch
    join = canvas.y + _GAP + _JOIN
    half = _JOIN if len(fork.join) == 1 else 6 + 3 * len(fork.join)
    _arrow(canvas, bottom, join - _JOIN)
    corner = f"q {_ARC} 0 {_ARC} {_ARC}"
    path = (
        f"M {_MIDDLE} {_spell(start + 2)} H {_SHORTCUT - _ARC} {corner} V {_spell(join - _ARC)} "
        f"q 0 {_ARC} {-_ARC} {_ARC} H {_MIDDLE + half + 1}"
    )
    canvas.add("path", class_="shortcut", d=path)
    canvas.add("path", class_="head", d=_head(_MIDDLE + half + 1, join, sideways=True))
    canvas.add(
        "rect",
        class_="join",
        x=_MIDDLE - half,
        y=join - _JOIN,
        width=2 * half,
        height=2 * _JOIN,
        rx=_JOIN,
    )
    canvas.text(fork.join, _MIDDLE, join + 4, class_="sign", anchor="middle")
    middle = (start + join) / 2 - 7 * len(label) + 10
    for number, text in enumerate(label):
        y = middle + 14 * number
        canvas.text(text, _SHORTCUT, y, class_="label", anchor="middle")
    canvas.y = join + _JOIN


def _fitting(shortcuts: tuple[tuple[str, ...], ...]) -> list[str]:
    """Return the label of shortcuts in lines that do not run into the branch."""
    texts: list[str] = []
    for path in shortcuts:
        texts += ["and"] * bool(texts)
        texts += [text for line in path or ("identity",) for text in _broken(line)]
    return texts


def _broken(line: str) -> list[str]:
    found = [""]
    pieces = [piece for text in line.split(" · ") for piece in _halves(text)]
    for piece in pieces:
        joined = f"{found[-1]} · {piece}" if found[-1] else piece
        if len(joined) > _CHARACTERS and found[-1]:
            found.append(piece)
        else:
            found[-1] = joined
    return found


def _halves(text: str) -> list[str]:
    """Break a long operation after its name."""
    name, comma, rest = text.partition(", ")
    return [name, rest] if comma and len(text) > _CHARACTERS else [text]


def _arrow(canvas: _Canvas, start: float, end: float) -> None:
    canvas.add("path", class_="flow", d=f"M {_MIDDLE} {_spell(start)} V {_spell(end)}")
    canvas.add("path", class_="head", d=_head(_MIDDLE, end))


def _head(x: float, y: float, *, sideways: bool = False) -> str:
    """Return the head of an arrow that ends at (x, y), pointing down or to the left."""
    if sideways:
        return f"M {x} {_spell(y)} l 6 -3.5 v 7 z"
    return f"M {x} {_spell(y)} l -3.5 -6 h 7 z"


def _spell(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
