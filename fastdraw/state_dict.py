"""Loading weights of another configuration: refused by name, before any weight is copied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn


class StateDictError(ValueError, RuntimeError):
    """A state_dict of another configuration. A ValueError, and the RuntimeError that torch's own modules raise."""


class CheckedStateDict(nn.Module):
    """A module with a `config`, whose load_state_dict refuses another configuration's weights."""

    config: Any

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As nn.Module.load_state_dict; weights of another configuration are refused before any is copied.

        Raises ValueError naming the first weight that differs, what came and what was expected.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict: expected a mapping of names to tensors, got {type(state_dict).__name__}")
        for name, own in self.state_dict().items():
            if name in state_dict and state_dict[name].shape != own.shape:
                raise StateDictError(
                    f"state_dict: expected {name} of shape {tuple(own.shape)} for {self.config},"
                    f" got {tuple(state_dict[name].shape)}"
                )
        try:
            return super().load_state_dict(state_dict, strict, assign)
        except RuntimeError as error:
            raise StateDictError(f"state_dict: {error}") from None
