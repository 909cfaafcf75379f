"""A network's architecture as an SVG picture: narrow, so that a phone shows it at full size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from bench.networks.graph import Block, Fork, Network

WIDTH = 320
# For a file of its own; on a page, the style sheet colours it for light and dark.
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
_LINE, _GAP = 20, 8  # height of a line of operations, and between two
_MIDDLE = 110  # where the data flows
_BOX = 196  # width of a line's box
_SHORTCUT = 262  # where the shortcut flows
_HEAD = 22  # a block's name and shape
_ARC = 10  # of the corners of a shortcut
_CHARACTERS = 15  # that fit beside the branch


@dataclass
class _Canvas:
    """An SVG element that is filled from the top to the bottom."""

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
    """Draw a network; every text is escaped.

    Args:
        network: what to draw.
        key: a word for the ids of the picture's title and description, unique on a page.
        title: what the picture is called.
        alone: it is a file of its own and brings its colours.

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
    """Say in words what the diagram shows, for those who do not see it."""
    parts = [f"Input {shape_text(network.input_shape)}."]
    for block in network.blocks:
        times = f", {block.count} times" if block.count > 1 else ""
        inside = "; ".join(_words(part) for part in block.parts)
        parts.append(f"{block.name}{times}: {inside}; gives {shape_text(block.shape)}.")
    return " ".join(parts)


def shape_text(shape: tuple[int, ...]) -> str:
    """Spell a shape: 64×56×56."""
    return "×".join(map(str, shape))


def _words(part: str | Fork) -> str:
    if isinstance(part, str):
        return part
    shortcut = ", ".join(part.shortcut) or "identity"
    return f"{', '.join(part.branch)}; joined ({part.join}) with the shortcut: {shortcut}"


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
    label = _fitting(fork.shortcut or ("identity",))
    room = 14 * len(label) + 2 * _ARC + 8
    canvas.y = max(canvas.y, start + room)  # the shortcut's words need their place
    join = canvas.y + _GAP + 9
    _arrow(canvas, canvas.y, join - 9)
    corner = f"q {_ARC} 0 {_ARC} {_ARC}"
    path = (
        f"M {_MIDDLE} {_spell(start + 2)} H {_SHORTCUT - _ARC} {corner} V {_spell(join - _ARC)} "
        f"q 0 {_ARC} {-_ARC} {_ARC} H {_MIDDLE + 10}"
    )
    canvas.add("path", class_="shortcut", d=path)
    canvas.add("path", class_="head", d=_head(_MIDDLE + 10, join, sideways=True))
    canvas.add("circle", class_="join", cx=_MIDDLE, cy=join, r=9)
    canvas.text(fork.join, _MIDDLE, join + 4, class_="sign", anchor="middle")
    middle = (start + join) / 2 - 7 * len(label) + 10
    for number, text in enumerate(label):
        y = middle + 14 * number
        canvas.text(text, _SHORTCUT, y, class_="label", anchor="middle")
    canvas.y = join + 9


def _fitting(lines: tuple[str, ...]) -> list[str]:
    """Break the shortcut's lines where they would run into the branch."""
    return [text for line in lines for text in _broken(line)]


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
    """Break an operation that is too long behind its name."""
    name, comma, rest = text.partition(", ")
    return [name, rest] if comma and len(text) > _CHARACTERS else [text]


def _arrow(canvas: _Canvas, start: float, end: float) -> None:
    canvas.add("path", class_="flow", d=f"M {_MIDDLE} {_spell(start)} V {_spell(end)}")
    canvas.add("path", class_="head", d=_head(_MIDDLE, end))


def _head(x: float, y: float, *, sideways: bool = False) -> str:
    """Return the point of an arrow that ends at (x, y), downwards or to the left."""
    if sideways:
        return f"M {x} {_spell(y)} l 6 -3.5 v 7 z"
    return f"M {x} {_spell(y)} l -3.5 -6 h 7 z"


def _spell(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
