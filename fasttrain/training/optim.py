"""Optimisers: which parameter is updated how, and one object that updates them all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fasttrain import config
from fasttrain.errors import UserError
from fasttrain.training.muon import Muon


class Optimizers:
    """One or two torch optimisers that are used as one.

    Every parameter group keeps its own rate; `set_rates` multiplies all of them by one factor. The
    product reaches the kernels as a plain number, by value: nothing is copied to the device, and
    because the update is no part of a compiled graph nothing is compiled again when it changes.
    Only where updates are recorded do kernels read it from the device's memory (`keep_rates_on`).

    Args:
        members: By name, which state files use.
        named: The parameters by name, which state files use, too: where one stands in a member
            depends on settings that may be changed when a run goes on.
    """

    def __init__(
        self, members: Mapping[str, torch.optim.Optimizer], named: Mapping[str, nn.Parameter]
    ) -> None:
        self._members = dict(members)
        self._names = {id(weight): name for name, weight in named.items()}
        self._rates = [float(group["lr"]) for group in self.groups]
        self._on_device: tuple[Tensor, Tensor] | None = None  # the rates, and times the factor

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The parameter groups of all members, with their settings."""
        return [group for each in self._members.values() for group in each.param_groups]

    def set_rates(self, factor: float) -> None:
        """Multiply all groups' own rates by `factor`, for the updates that follow."""
        if self._on_device is not None:
            rates, now = self._on_device
            torch.mul(rates, factor, out=now)
            return
        for group, rate in zip(self.groups, self._rates, strict=True):
            group["lr"] = rate * factor

    def keep_rates_on(self, device: torch.device) -> None:
        """Let kernels read the rates from memory, so that a recorded update follows them."""
        rates = torch.tensor(self._rates, device=device)
        now = rates.clone()
        self._on_device = rates, now
        for group, rate in zip(self.groups, now, strict=True):
            group["lr"] = rate
            if "capturable" in group:  # AdamW asks for it
                group["capturable"] = True

    def keep_rates_here(self) -> None:
        """Let `set_rates` alone say what the rates are, as for updates that are not recorded."""
        self._on_device = None
        for group, rate in zip(self.groups, self._rates, strict=True):
            group["lr"] = rate
            if "capturable" in group:
                group["capturable"] = False

    def begin(self) -> None:
        """Make what members remember, and change nothing."""
        weights = [weight for group in self.groups for weight in group["params"]]
        for weight in weights:
            weight.grad = torch.zeros_like(weight)
        self.update(skip=torch.ones((), device=weights[0].device))
        self.zero_grad()

    def update(self, skip: Tensor | None = None) -> None:
        """Update the parameters.

        Args:
            skip: () on the device; where it is 1 nothing changes, which takes no look at it.
        """
        for member in self._members.values():
            if skip is not None:
                _begin_momentum(member)
            # The name by which torch's fused kernels take it from a gradient scaler.
            member.found_inf = skip  # type: ignore[attr-defined]
            member.step()

    def zero_grad(self) -> None:
        """Let go of all gradients."""
        for member in self._members.values():
            member.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """What the optimisers remember of each parameter; their settings are in the config."""
        return {
            key: {
                name: member.state[weight]
                for name, weight in self._weights(member).items()
                if weight in member.state  # to ask for what is not there would make it
            }
            for key, member in self._members.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what was remembered.

        Raises:
            UserError: it is the state of other optimisers, or of other parameters.
        """
        if state.keys() != self._members.keys():
            raise UserError(
                f"the checkpoint was trained with {' and '.join(state)}, not with "
                f"{' and '.join(self._members)}; resume with the run's own config.yaml"
            )
        for key, member in self._members.items():
            places = {name: place for place, name in enumerate(self._weights(member))}
            known = places.keys() | places.values()  # older checkpoints name weights by places
            if unknown := [name for name in state[key] if name not in known]:
                raise UserError(
                    f"the checkpoint remembers '{unknown[0]}' for {key}, which has no such weight "
                    "here; resume with the run's own config.yaml"
                )
            remembered = {places.get(name, name): found for name, found in state[key].items()}
            settings = member.state_dict()["param_groups"]
            member.load_state_dict({"state": remembered, "param_groups": settings})
        self.keep_rates_here()

    def _weights(self, member: torch.optim.Optimizer) -> dict[str, nn.Parameter]:
        """A member's parameters in its own order."""
        every = [weight for group in member.param_groups for weight in group["params"]]
        return {self._names[id(weight)]: weight for weight in every}


def _begin_momentum(member: torch.optim.Optimizer) -> None:
    """Let SGD's momentum begin at zero, which torch leaves to the kernel of the first step.

    Told to skip that step it would write nothing, and what lay in that memory would be kept.
    """
    if not isinstance(member, torch.optim.SGD):
        return
    for group in member.param_groups:
        for weight in group["params"] if group["momentum"] else ():
            if "momentum_buffer" not in member.state[weight]:
                member.state[weight]["momentum_buffer"] = torch.zeros_like(weight)


def build(optim: config.Optim, model: nn.Module) -> Optimizers:
    """Build the optimisers that `optim` describes over the model's trainable parameters."""
    named = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    if not isinstance(optim, config.Muon):
        return Optimizers({optim.name: _build_one(optim, named)}, named)
    kernels = _hidden_matrices(named)
    others = {name: weight for name, weight in named.items() if name not in kernels}
    members: dict[str, torch.optim.Optimizer] = {}
    if kernels:
        settings = optim.model_dump(exclude={"name", "rest"})
        members["muon"] = Muon(kernels.values(), **settings)
    if others:
        members[optim.rest.name] = _build_one(optim.rest, others)
    return Optimizers(members, named)


def parameter_groups(
    named: Mapping[str, nn.Parameter], decay: float, decay_biases: bool = False
) -> list[dict[str, Any]]:
    """Spare norms and biases, which are all that has fewer than two dimensions, from decay.

    In long runs decaying them costs accuracy (He et al., "Bag of Tricks", arXiv 1812.01187,
    section 3.1).

    Args:
        named: The parameters.
        decay: Of all others.
        decay_biases: Spare nothing.
    """
    groups: dict[bool, list[nn.Parameter]] = {}
    for weight in named.values():
        spared = not decay or (weight.ndim < 2 and not decay_biases)
        groups.setdefault(spared, []).append(weight)
    return [
        {"params": weights, "weight_decay": 0.0 if spared else decay}
        for spared, weights in sorted(groups.items())
    ]


def _hidden_matrices(named: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """What Muon takes: every matrix and kernel but the last, that of the output layer.

    Its rows are classes and no directions in a space of features (Jordan et al., 2024, section
    "Empirical considerations").
    """
    matrices = {name: weight for name, weight in named.items() if weight.ndim >= 2}
    return dict(list(matrices.items())[:-1])


def _build_one(
    optim: config.SGD | config.AdamW, named: Mapping[str, nn.Parameter]
) -> torch.optim.Optimizer:
    """One of torch's optimisers, with its fused kernel."""
    settings = optim.model_dump(exclude={"name"})
    decays = settings.pop("weight_decay"), settings.pop("decay_biases", False)
    groups = parameter_groups(named, *decays)
    kind = torch.optim.AdamW if isinstance(optim, config.AdamW) else torch.optim.SGD
    return kind(groups, fused=True, **settings)
