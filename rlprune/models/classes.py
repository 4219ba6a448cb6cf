"""Classes of a network by name: those that its weights know, and a last layer for some of them alone."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlprune.errors import MissingExtraError, ModelError
from rlprune.models import libraries
from rlprune.utils.files import read_regular

_MOST_CONFIG = 16 * 2**20
_MOST_SHOWN = 5
_IMAGENET = 1000
_WORDNET = re.compile(r"n\d{8}(?!\d)")
"""How WordNet's ids begin a name, as in n01440764 or n02085620-Chihuahua."""


@dataclass(frozen=True)
class KnownClasses:
    """What a network's logits stand for.

    Attributes:
        source: who says so, as in a message.
        names: for each logit, all that its class is called; the first is shown.
        certain: whether it is said of these very weights, not of others of the same network.
    """

    source: str
    names: tuple[tuple[str, ...], ...]
    certain: bool = True

    def __len__(self) -> int:
        return len(self.names)


def of_library(name: str, *, certain: bool = True) -> KnownClasses | None:
    """The classes of the pretrained weights of a library's network; None where the library does not say.

    Args:
        name: as for `rlprune.models.libraries.build`.
        certain: whether these weights are meant, and not a file for the same network.

    Raises:
        ModelError: no such network, or no weights of it.
    """
    names = libraries.class_names(name)
    return KnownClasses(name, _with_words(names), certain) if names else None


def of_names(source: str, names: Sequence[str]) -> KnownClasses:
    """The classes that a file of weights says itself, in the order of the logits."""
    return KnownClasses(source, _with_words(names))


def in_folder(folder: Path) -> KnownClasses | None:
    """The classes that a folder of the Hugging Face hub has in its config.json; None where it has none."""
    config = folder / "config.json"
    if not config.is_file():
        return None
    try:
        found = json.loads(read_regular(config, _MOST_CONFIG))
        names = found.get("label_names") or found.get("pretrained_cfg", {}).get("label_names")
        if not names:
            numbered = {int(number): name for number, name in found.get("id2label", {}).items()}
            names = [numbered[number] for number in range(len(numbered))]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None  # it is somebody else's, and only asked for names
    words = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    return of_names(str(config), words) if words and len(words) == len(names) else None


def _with_words(names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Names, and what WordNet calls the same class: its id for ImageNet's words, its words for ids."""
    ids = all(map(_WORDNET.fullmatch, names))
    words = wordnet(len(names)) if ids or len(names) == _IMAGENET else {}
    if ids and all(name in words for name in names):
        return tuple((words[name], name) for name in names)
    if len(names) == len(words) and _is_imagenet(names, words):
        return tuple(zip(names, words, words.values(), strict=True))
    return tuple((name,) for name in names)


@cache
def wordnet(n_classes: int = _IMAGENET) -> dict[str, str]:
    """The words for the classes of ImageNet, or of a larger set that contains it, by their ids in WordNet.

    Args:
        n_classes: of the set that is meant; where there is none of so many, the one of 1000.

    Returns:
        In the order of the classes; empty where timm, which knows them, is not installed.
    """
    try:
        data: Any = libraries.import_library("timm.data")
    except MissingExtraError:
        return {}
    info = data.ImageNetInfo(data.infer_imagenet_subset({"num_classes": n_classes}) or "imagenet-1k")
    return dict(info.label_descriptions(as_dict=True))


def _is_imagenet(names: Sequence[str], words: dict[str, str]) -> bool:
    """Whether names are of ImageNet's classes, in their order: torchvision's differ from WordNet's in a few."""
    same = sum(
        _plain(name) in (_plain(text), *map(_plain, text.split(", ")))
        for name, text in zip(names, words.values(), strict=True)
    )
    return same > 0.9 * len(names)


# ---- which of them the data's are


def match(known: KnownClasses, classes: Sequence[str]) -> list[int]:
    """Find the data's classes among those that a network knows.

    Case does not matter, nor do signs: ``French_horn`` is ``french horn``. A name may be WordNet's id, alone or before
    others (``n02085620-Chihuahua``), the whole name, or one of several between commas.

    Args:
        known: the network's.
        classes: the data's.

    Returns:
        The logit of each of the data's classes.

    Raises:
        ModelError: some are not there, may be several, or are the same.
    """
    own = [names[0] for names in known.names]
    if len(set(own)) == len(own) and set(own) == set(classes):
        return [own.index(name) for name in classes]  # some of which differ by case alone, as cardigan and Cardigan
    found = _candidates(known, classes)
    missing = [name for name, places in zip(classes, found, strict=True) if not places]
    if missing:
        raise ModelError(_not_known(known, classes, missing))
    several = next((i for i, places in enumerate(found) if len(places) > 1), None)
    if several is not None:
        options = " or ".join(_unique_name(known, place) for place in found[several])
        raise ModelError(
            f"the class {classes[several]!r} may be {options} of the {len(known)} that {known.source} knows; call it "
            "(its folder, or its name in classes.json) by the one that it is"
        )
    rows = [places[0] for places in found]
    place, n = Counter(rows).most_common(1)[0]
    if n > 1:
        same = " and ".join(repr(name) for name, row in zip(classes, rows, strict=True) if row == place)
        raise ModelError(
            f"the classes {same} are all {_shown(known, place)} to {known.source}; join them, or train a new head with "
            "`rlprune pretrain --weights`"
        )
    return rows


def matches_any(known: KnownClasses, classes: Sequence[str]) -> bool:
    """Whether at least one of the data's classes is known."""
    return any(_candidates(known, classes))


def _candidates(known: KnownClasses, classes: Sequence[str]) -> list[list[int]]:
    """For each class the logits that it may be; those that are another's alone are no longer in question."""
    by_id, whole, parts = _index(known)
    found: list[list[int]] = []
    for name in classes:
        number = _WORDNET.match(name)
        exact = by_id.get(number[0]) if number else None
        found.append(exact or whole.get(_plain(name)) or parts.get(_plain(name)) or [])
    taken = {places[0] for places in found if len(places) == 1}
    return [[place for place in each if place not in taken] or each if len(each) > 1 else each for each in found]


def _index(known: KnownClasses) -> tuple[dict[str, list[int]], ...]:
    """The logits by WordNet's id, by whole names, and by what stands between commas."""
    by_id, whole, parts = (defaultdict[str, list[int]](list) for _ in range(3))
    for place, names in enumerate(known.names):
        for name in names:
            number = _WORDNET.match(name)
            if number:
                by_id[number[0]].append(place)
        for text in dict.fromkeys(map(_plain, names)):
            whole[text].append(place)
        for text in dict.fromkeys(_plain(part) for name in names for part in name.split(",")):
            parts[text].append(place)
    return by_id, whole, parts


def _plain(name: str) -> str:
    """A name without case and signs; itself where it has nothing else."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return " ".join(re.findall(r"[^\W_]+", folded)) or folded


def _shown(known: KnownClasses, place: int) -> str:
    return known.names[place][0].partition(",")[0]


def _unique_name(known: KnownClasses, place: int) -> str:
    """WordNet's id where there is one, and the name."""
    number = next((name for name in known.names[place] if _WORDNET.fullmatch(name)), None)
    return f"{number} ({_shown(known, place)})" if number else f"{place} ({known.names[place][0]!r})"


def _not_known(known: KnownClasses, classes: Sequence[str], missing: Sequence[str]) -> str:
    some = ", ".join(_shown(known, place) for place in range(min(_MOST_SHOWN, len(known))))
    more = f" and {len(missing) - _MOST_SHOWN} more" if len(missing) > _MOST_SHOWN else ""
    names = ", ".join(map(repr, missing[:_MOST_SHOWN])) + more
    cure = "call them (their folders, or a list in classes.json beside parquet files) as the network does"
    if any(map(_WORDNET.match, missing)) and not wordnet():
        cure = 'install "rlprune[timm]", which knows the names of WordNet\'s ids'
    return (
        f"{known.source} knows {len(known)} classes ({some}, ...), and {len(missing)} of the images' {len(classes)} "
        f"are none of them: {names}; {cure}, or train a new head with `rlprune pretrain --weights`"
    )


# ---- a last layer for some of them


@torch.no_grad()
def keep_classes(model: nn.Module, rows: Sequence[int], image_shape: Sequence[int]) -> None:
    """Keep those outputs of a network's last layer that stand for some classes: the others' logits are gone.

    Args:
        model: changed in place, and left in eval mode; a new one after an error.
        rows: which logits to keep, in that order.
        image_shape: (C, H, W) of its images.

    Raises:
        ModelError: no single last layer gives its logits.
    """
    images = torch.rand(2, *image_shape, generator=torch.Generator().manual_seed(0))
    before, layer = _last_layer(model.eval(), images)
    index = torch.as_tensor(rows)
    if layer is not None:
        n_logits = before.shape[1]
        for name in ("weight", "bias"):
            if (values := getattr(layer, name)) is not None:
                setattr(layer, name, nn.Parameter(values[index].clone(), values.requires_grad))
        setattr(layer, "out_features" if isinstance(layer, nn.Linear) else "out_channels", len(rows))
        if getattr(model, "num_classes", None) == n_logits:  # as timm's and some of torchvision's know it
            model.num_classes = len(rows)  # type: ignore[assignment]
    if layer is None or not _same(model, images, before[:, index]):
        raise ModelError(
            f"the logits of this {type(model).__name__} are not those of one last layer (Linear, or a convolution of "
            "1x1), so that none can be taken away; train a new head with `rlprune pretrain --weights`"
        )


def _last_layer(model: nn.Module, images: Tensor) -> tuple[Tensor, nn.Linear | nn.Conv2d | None]:
    """A network's logits for some images, and the last layer that ran with as many outputs."""
    ran: list[Any] = []
    layers = [each for each in model.modules() if isinstance(each, nn.Linear | nn.Conv2d)]
    hooks = [layer.register_forward_hook(lambda layer, *_: ran.append(layer)) for layer in layers]
    try:
        logits: Tensor = model(images)
    finally:
        for hook in hooks:
            hook.remove()
    n_logits = logits.shape[1]
    return logits, next((layer for layer in reversed(ran) if _is_head(layer, n_logits)), None)


def _is_head(layer: nn.Linear | nn.Conv2d, n_logits: int) -> bool:
    if isinstance(layer, nn.Linear):
        return layer.out_features == n_logits
    return layer.out_channels == n_logits and layer.kernel_size == (1, 1) and layer.groups == 1


def _same(model: nn.Module, images: Tensor, expected: Tensor) -> bool:
    """Whether a network gives the logits that it is to give."""
    try:
        logits: Tensor = model(images)
    except RuntimeError:
        return False
    return logits.shape == expected.shape and torch.allclose(logits, expected, rtol=1e-4, atol=1e-5)
