"""The sparse weights of a model and their masks, whatever others do to the model meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from codesign.basics.errors import InputError, UnsupportedError
from codesign.train.rewiring.parameters import check_unowned, disown, find_parameter, own, plain_name, unwrapped
from codesign.train.rewiring.selection import Bool


class MaskedWeights:
    """Parameters by name, a mask for each (bool, True is active), and what keeps pruned weights at 0.

    model : where the parameters are looked up again, by name.
    parameters, masks : of the same order and shapes.
    masks_nothing : all masks are True for good.

    Construction zeroes what the masks exclude, and keeps it until :meth:`settle` for a state that is loaded later.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Mapping[str, nn.Parameter],
        masks: Iterable[Bool],
        *,
        masks_nothing: bool,
    ) -> None:
        self.model, self.parameters, self._masks_nothing = model, dict(parameters), masks_nothing
        self.masks = {
            name: torch.from_numpy(mask).to(weight.device)
            for (name, weight), mask in zip(self.parameters.items(), masks, strict=True)
        }
        # Masks as factors: a product is many times faster than filling by a mask.
        self._factors = {name: mask.to(self.parameters[name].dtype) for name, mask in self.masks.items()}
        zeroed = {} if masks_nothing else self.parameters
        self._removed = {name: weight.detach().clone() for name, weight in zeroed.items()}
        self._versions: dict[str, int] = {}
        self._dense: list[tuple[Tensor, Tensor, int]] = []
        self.zero_pruned()

    # Following the model.

    def find(self, name: str) -> nn.Parameter:
        """The parameter of this name as the model has it now. InputError if it is gone or has another shape."""
        found = find_parameter(self.model, name)
        if found is None:
            raise InputError(
                f"PQRewirer: the model has no parameter {name!r} any more (removed or parametrised); construct the "
                f"rewirer after such changes"
            )
        if found.shape != self.masks[name].shape:
            sizes = f"{tuple(self.masks[name].shape)} before, {tuple(found.shape)} now"
            raise InputError(f"PQRewirer: {name!r} has another shape ({sizes}); construct the rewirer anew")
        return found

    @torch.no_grad()
    def follow(self, is_trained: Callable[[Tensor], bool], owner: object) -> None:
        """Take the model's parameters as they are now: replaced, moved, converted.

        is_trained : asked of a parameter that replaced another one; InputError where the answer is no.
        """
        for name, known in self.parameters.items():
            found = self.find(name)
            if found is not known:
                if not is_trained(found):
                    raise InputError(
                        f"PQRewirer: {name!r} was replaced in the model, and the optimizer holds the old one; give the "
                        f"optimizer the new parameter, or construct optimizer and rewirer anew"
                    )
                check_unowned({name: found}, owner)
                disown({name: known})
                own({name: found}, owner)
                self.parameters[name] = found
                self._versions.pop(name, None)
            factor = self._factors[name]
            if factor.device != found.device or factor.dtype != found.dtype:
                self.masks[name] = self.masks[name].to(found.device)
                self._factors[name] = self.masks[name].to(found.dtype)

    # Counting.

    @property
    def counts(self) -> dict[str, int]:
        """Active weights of each parameter."""
        return {name: int(mask.sum()) for name, mask in self.masks.items()}

    @torch.no_grad()
    def present(self) -> dict[str, int]:
        """Weights of each parameter, as the model has it now, that are active or not 0."""
        if self._masks_nothing:
            return self.counts
        found = {name: self.find(name) for name in self.masks}
        return {
            name: int(((found[name] != 0) | mask.to(found[name].device)).sum()) for name, mask in self.masks.items()
        }

    def nonzero(self) -> dict[str, int]:
        """Active weights of each parameter that are not 0."""
        return {name: int(((self.parameters[name].detach() != 0) & mask).sum()) for name, mask in self.masks.items()}

    # Masking.

    @torch.no_grad()
    def zero_pruned(self) -> None:
        """Zero what the masks exclude."""
        if self._masks_nothing:
            return
        for name, weight in self.parameters.items():
            weight.mul_(self._factors[name])
            self._versions[name] = weight._version

    @torch.no_grad()
    def zero_written(self) -> dict[str, int]:
        """Zero what was written into pruned weights since they were last zeroed; how many weights of which parameter.

        Torch counts the writes into a tensor, so it costs nothing where there was none.
        """
        written = {}
        for name, weight in self.parameters.items():
            if self._masks_nothing or weight._version == self._versions.get(name):
                continue
            outside = (weight != 0) & ~self.masks[name]
            if count := int(outside.sum()):
                weight.masked_fill_(outside, 0.0)
                written[name] = count
            self._versions[name] = weight._version
        return written

    @torch.no_grad()
    def mask_gradients(self, names: Iterable[str], *, keep: bool = False) -> None:
        """Zero the gradients of pruned weights of these parameters; ``keep`` them for :meth:`unmask_gradients`."""
        if self._masks_nothing:
            return
        for name in names:
            gradient = self.gradient(name)
            if gradient is not None:
                dense = gradient.clone() if keep else None
                gradient.mul_(self._factors[name])
                if dense is not None:
                    self._dense.append((gradient, dense, gradient._version))

    @torch.no_grad()
    def unmask_gradients(self) -> None:
        """Undo the masking of gradients that were kept, where nobody has written them since."""
        for gradient, dense, version in self._dense:
            if gradient._version == version:
                gradient.copy_(dense)
        self._dense = []

    def gradient(self, name: str) -> Tensor | None:
        """The gradient of a parameter. UnsupportedError for a sparse one."""
        gradient = self.parameters[name].grad
        if gradient is not None and gradient.layout != torch.strided:
            raise UnsupportedError(
                f"PQRewirer: {name!r} has sparse gradients, which are not built; build its module with sparse=False, "
                f"or exclude it"
            )
        return gradient

    @torch.no_grad()
    def change(self, name: str, gone: Tensor, new: Tensor) -> Tensor:
        """Take bool positions out of a mask and others in, both with weight 0; the positions that changed."""
        mask = self.masks[name]
        mask &= ~gone
        mask |= new
        self._factors[name].copy_(mask)
        changed = gone | new
        self.parameters[name].masked_fill_(changed, 0.0)
        return changed

    @torch.no_grad()
    def load_masks(self, masks: Mapping[str, Tensor]) -> None:
        """Other masks (by plain name); what construction zeroed comes back where nothing was written since."""
        for name, kept in self._removed.items():
            weight = self.parameters[name]
            if weight._version == self._versions.get(name):
                weight.copy_(kept)
        for name, mask in self.masks.items():
            mask.copy_(masks[plain_name(name)])
            self._factors[name].copy_(mask)
        self.zero_pruned()

    def settle(self) -> None:
        """Forget what construction zeroed: training has begun."""
        self._removed = {}

    @torch.no_grad()
    def give_back(self) -> None:
        """Undo the zeroing of construction."""
        for name, kept in self._removed.items():
            self.parameters[name].copy_(kept)

    @torch.no_grad()
    def apply_to(self, model: nn.Module) -> None:
        """Zero what the masks exclude in another model. InputError if one of the parameters is missing or different."""
        found = {plain_name(name): value for name, value in unwrapped(model).named_parameters(remove_duplicate=False)}
        weights: dict[str, Tensor] = {}
        for name, mask in self.masks.items():
            weight = found.get(plain_name(name))
            if weight is None or weight.shape != mask.shape:
                size = "absent" if weight is None else f"of shape {tuple(weight.shape)}"
                here = tuple(mask.shape)
                raise InputError(f"PQRewirer: {name!r} is {size} in the other model, here of shape {here}")
            weights[name] = weight
        for name, weight in weights.items():
            weight.masked_fill_(~self.masks[name].to(weight.device), 0.0)
