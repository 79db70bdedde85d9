"""What models return in the place of a tensor, and losses that take it."""

from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass, fields
from types import SimpleNamespace

import torch.nn.functional as F
from torch import Tensor

Heads = namedtuple("Heads", "logits aux_logits")


@dataclass
class ModelOutput(OrderedDict):
    """A dataclass and a dictionary at once, which only its fields may change.

    Hugging Face's outputs are made in this way.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple | None = None

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                self[field.name] = value

    def __getitem__(self, key):
        return dict(self.items())[key]

    def __setattr__(self, name, value):
        if name in self.keys() and value is not None:
            super().__setitem__(name, value)
        super().__setattr__(name, value)

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        super().__setattr__(key, value)

    def update(self, *args, **kwargs):
        raise TypeError("an output takes no updates")

    def __reduce__(self):
        args = tuple(getattr(self, field.name) for field in fields(self))
        return type(self), args


class ByName(OrderedDict):
    """A dictionary that is only made with names, and read by attributes as well."""

    def __init__(self, *, logits, aux_logits):
        super().__init__(logits=logits, aux_logits=aux_logits)
        self.logits = logits
        self.aux_logits = aux_logits


@dataclass(frozen=True)
class Frozen:
    """A dataclass that cannot be changed."""

    logits: Tensor
    aux_logits: Tensor


@dataclass(slots=True)
class Slots:
    """A dataclass without a `__dict__`."""

    logits: Tensor
    aux_logits: Tensor


class Uncopyable:
    """An object that does not allow a deep copy."""

    def __init__(self, logits, aux_logits):
        self.logits = logits
        self.aux_logits = aux_logits

    def __deepcopy__(self, memo):
        raise RuntimeError("this object cannot be copied")


def model_output(logits, aux_logits):
    states = (logits.detach().flatten()[None, None], aux_logits.detach())
    return ModelOutput(loss=logits.mean(), logits=logits, hidden_states=states)


# With attributes: the prediction is .logits.
OBJECTS = {
    "named tuple": Heads,
    "model output": model_output,
    "dictionary with attributes": lambda logits, aux: ByName(logits=logits, aux_logits=aux),
    "frozen dataclass": Frozen,
    "dataclass with slots": Slots,
    "object": lambda logits, aux: SimpleNamespace(loss=aux.mean(), logits=logits, aux_logits=aux),
    "uncopyable object": Uncopyable,
}
# With keys: the prediction is ["out"].
DICTS = {
    "dict": lambda out, aux: {"out": out, "aux": aux},
    "ordered dict, auxiliary head first": lambda out, aux: OrderedDict(aux=aux, out=out),
    "user's dict": lambda out, aux: UserDict(features=aux.mean(), out=out, aux=aux),
}
# With indices: the prediction is [0].
SEQUENCES = {"tuple": lambda out, aux: (out, aux), "list": lambda out, aux: [out, aux]}
CONTAINERS = OBJECTS | DICTS | SEQUENCES


def main_logits(outputs):
    """Return the prediction in any of them, as a loss of the user's would."""
    if isinstance(outputs, (list, tuple)):
        return outputs[0]
    return outputs.logits if hasattr(outputs, "logits") else outputs["out"]


def both_heads(loss):
    """Return a loss of two heads, which takes the container, whatever it is."""

    def criterion(outputs, targ):
        if isinstance(outputs, (dict, UserDict)) and "out" in outputs:
            return loss(outputs["out"], targ) + 0.5 * loss(outputs["aux"], targ)
        if isinstance(outputs, (list, tuple)):
            return sum(loss(head, targ) for head in outputs)
        return loss(outputs.logits, targ)

    return criterion


def cross_entropy(logits, targ):
    return F.cross_entropy(logits, targ, ignore_index=254)


def focal(logits, targ):
    each = F.cross_entropy(logits, targ, reduction="none")
    return ((1 - (-each).exp()) ** 2 * each).mean()


def dice(logits, targ):
    probs = logits.sigmoid()
    assert probs.shape == targ.shape
    return 1 - 2 * (probs * targ).sum() / (probs + targ).sum()
