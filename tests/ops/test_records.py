"""Flat arguments and the named tuples that they stand for."""

from __future__ import annotations

import pytest

from fastdraw.ops import classification, recurrence
from fastdraw.ops.records import flat, named, nothing, schema

KINDS = [getattr(m, name) for m in (recurrence, classification) for name in ("Arguments", "GradientArguments", "Saved")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_is_its_flat_arguments(kind: type) -> None:
    arguments = tuple(range(len(flat(nothing(kind)))))
    record = named(kind, arguments)
    assert flat(record) == arguments
    for wrong in (arguments[:-1], (*arguments, 0)):
        with pytest.raises(TypeError, match=f"{kind.__name__}: expected {len(arguments)} arguments, got {len(wrong)}"):
            named(kind, wrong)


def test_schema_has_names_in_their_order() -> None:
    said = schema(classification.GradientArguments, tape="tape_")
    assert said.startswith("Tensor grad_logits, Tensor x, Tensor lstm_ih, Tensor lstm_hh, ")
    assert said.endswith("Tensor tape_params, Tensor tape_inputs, Tensor tape_gates, Tensor tape_c, bool need_x, int size, "
                         "ScalarType dtype, str backend")  # fmt: skip
