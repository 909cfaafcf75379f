"""The families of one network each: the plain CNN and the book's network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .registry import SingleFamily, register

if TYPE_CHECKING:
    from torch import nn


def _plain_cnn(**arguments: Any) -> nn.Module:
    from .plain_cnn import PlainCNN

    return PlainCNN(**arguments)


def _book_resnet18(**arguments: Any) -> nn.Module:
    from .book import book_resnet18

    return book_resnet18(**arguments)


register(
    SingleFamily(
        name="plain_cnn",
        names=("plain_cnn",),
        source="Simonyan and Zisserman 2015, with batch normalisation and ResNet-18's cost",
        builder=_plain_cnn,
        counts={"width": 64},
    )
)
register(
    SingleFamily(
        name="d2l_resnet18",
        names=("d2l_resnet18",),
        source="Dive into Deep Learning, chapter Residual Networks",
        builder=_book_resnet18,
        channels=1,
        size=96,
        classes=10,
    )
)
