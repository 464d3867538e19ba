"""Loading weights of another configuration: refused by name, before any weight is copied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from fastdraw import checks
from fastdraw.text import printable, short


class StateDictError(ValueError, RuntimeError):
    """A state_dict of another configuration. A ValueError, and the RuntimeError that torch's own modules raise."""


class CheckedStateDict(nn.Module):
    """A module with a `config`, whose load_state_dict refuses another configuration's weights."""

    config: Any

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As nn.Module.load_state_dict; weights of another configuration are refused before any is copied.

        Raises ValueError naming the first weight that differs, what came and what was expected; TypeError for what is no
        mapping of names to tensors.
        """
        check_names(state_dict)
        # Hooks before loading may make other names and shapes of what comes.
        changed = any(module._load_state_dict_pre_hooks for module in self.modules())
        for name, own in self.state_dict().items():
            # What torch's own tools keep beside tensors is theirs.
            if name not in state_dict or not isinstance(own, Tensor):
                continue
            value = state_dict[name]
            if not isinstance(value, Tensor):
                raise checks.expected(f"state_dict: {short(name)}", "a tensor", value, TypeError)
            if value.shape != own.shape and not changed:
                raise StateDictError(
                    f"state_dict: expected {name} of shape {tuple(own.shape)} for {self.config}, got {tuple(value.shape)}"
                )
        try:
            return super().load_state_dict(state_dict, strict, assign)
        except RuntimeError as error:
            raise StateDictError(f"state_dict: {printable(error)}") from None


def check_names(state_dict: Any) -> None:
    """A mapping whose keys are names. Raises TypeError, which says what a module or a file's path should have been."""
    if isinstance(state_dict, nn.Module):
        raise TypeError(
            f"state_dict: expected a mapping of names to tensors, got a {type(state_dict).__name__}: its .state_dict()"
        )
    if not isinstance(state_dict, Mapping):
        raise checks.expected("state_dict", "a mapping of names to tensors", state_dict, TypeError)
    for name in state_dict:
        if not isinstance(name, str):
            raise checks.expected("state_dict", "names that are strings", name, TypeError)
