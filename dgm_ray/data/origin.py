"""What a trained model keeps of the table that it was trained on: what makes its cells of a user's, and back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dgm_ray.data.frames import FrameEncoder
from dgm_ray.data.metadata import Metadata
from dgm_ray.data.scaling import MinMaxScaler
from dgm_ray.data.splits import Prepared
from dgm_ray.errors import DataError, nearest

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float32]
_SHOWN = 5  # rows of the example


@dataclass(frozen=True, eq=False)
class Origin:
    """How a user's rows become scaled features (rows, num_features), and how those become rows again.

    scaler: None where the table came scaled. means_and_modes: (num_features,), scaled, of the training rows.
    num_classes, classes: of the labels, as in Metadata. label: the column that has them. left_out: columns of the
    table that were not learned from. example: rows of the training, by column, in which cells are missing.
    """

    encoder: FrameEncoder
    scaler: MinMaxScaler | None
    means_and_modes: Floats
    num_classes: int = 0
    classes: tuple[str, ...] = ()
    label: str | None = None
    left_out: tuple[str, ...] = ()
    example: Mapping[str, list[Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Prepared, label: str | None = None, left_out: tuple[str, ...] = ()) -> "Origin":
        """Return that of a table which was prepared for training. No cell that is hidden is looked at.

        The example is made of the first training rows, of the first validation rows where those are streamed.
        """
        encoder = data.encoder or FrameEncoder.of_metadata(data.metadata)
        num_classes, classes = data.metadata.num_classes, data.metadata.classes
        made = cls(encoder, data.scaler, data.means_and_modes, num_classes, classes, label, left_out)
        seen = data.train.features if len(data.train.features) else data.validation.features
        return replace(made, example=_example(made, seen[:_SHOWN]))

    @cached_property
    def metadata(self) -> Metadata:
        """The variables and the classes."""
        return replace(self.encoder.metadata, classes=self.classes, num_classes=self.num_classes)

    def scaled(self, frame: "pd.DataFrame", place: str = "rows") -> Floats:
        """Return rows as features (rows, num_features), NaN where missing. Raises DataError if they do not fit."""
        features = self.encoder.encode(frame, place)
        return self.scaler.transform(features) if self.scaler else features

    def units(self, features: Floats) -> Floats:
        """Return features (rows, num_features) in the user's units."""
        return self.scaler.inverse_transform(features) if self.scaler else features

    def class_numbers(self, labels: Any, rows: int, place: str = "labels") -> Floats:
        """Return labels as class numbers, (rows,). labels: one for each row, or one for all.

        A label is a class by its name, or by its number where classes have no names. Raises DataError for another, or
        for another number of them.
        """
        given = [labels] * rows if isinstance(labels, str | int | float | np.generic) else list(labels)
        if len(given) != rows:
            raise DataError(place, f"must be one for each of the {rows} rows, or one for all", len(given))
        known = self.classes or tuple(map(str, range(self.num_classes)))
        numbers = {name: number for number, name in enumerate(known)}
        for one in given:
            if _plain(one) not in numbers:
                rule = f"there is no class {one!r}{nearest(str(one), known) or f'; there are {list(known)[:_MANY]}'}"
                raise DataError(place, rule)
        return np.array([numbers[_plain(one)] for one in given], dtype=np.float32)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON; ``from_dict`` reads it."""
        return {
            "encoder": self.encoder.to_dict(),
            "scaler": self.scaler and self.scaler.to_dict(),
            "means_and_modes": np.asarray(self.means_and_modes).tolist(),
            "num_classes": self.num_classes,
            "classes": list(self.classes),
            "label": self.label,
            "left_out": list(self.left_out),
            "example": dict(self.example),
        }

    @classmethod
    def from_dict(cls, content: Any, place: str = "table") -> "Origin":
        """Read what ``to_dict`` returns. Raises DataError for anything else."""
        try:
            made = cls(
                FrameEncoder.from_dict(content["encoder"], place),
                MinMaxScaler.from_dict(content["scaler"], place) if content["scaler"] is not None else None,
                np.array(content["means_and_modes"], dtype=np.float32),
                int(content["num_classes"]),
                tuple(content["classes"]),
                content["label"],
                tuple(content["left_out"]),
                dict(content["example"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(place, f"does not describe a table ({type(error).__name__}: {error})") from None
        if made.means_and_modes.shape != (made.metadata.num_features,):
            rule = f"must have {made.metadata.num_features} items"
            raise DataError(f"{place}: means_and_modes", rule, made.means_and_modes.shape)
        return made

    @classmethod
    def read(cls, path: Path) -> "Origin":
        """Read a file that has what ``to_dict`` returns. Raises DataError for one that has not."""
        return cls.from_dict(read_object(path), str(path))

    def example_frame(self) -> "pd.DataFrame":
        """Return the example as a table: cells are None, NaN or NaT where missing."""
        import pandas as pd

        made = pd.DataFrame({one.name: self.example[str(one.name)] for one in self.encoder.columns})
        for one in self.encoder.columns:
            if one.family == "dates":
                made[one.name] = pd.to_datetime(made[one.name], format="ISO8601")
        return made


_MANY = 12  # classes that an error names


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file. Raises DataError if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(str(path), f"cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise DataError(str(path), "is not JSON: it is cut short or damaged") from None
    if not isinstance(content, dict):
        raise DataError(str(path), "must be a JSON object")
    return content


def _plain(label: Any) -> str:
    """Return a label as its class is called; pandas makes floats of whole numbers."""
    return str(int(label)) if isinstance(label, float | np.floating) and float(label).is_integer() else str(label)


def _example(origin: Origin, features: Floats) -> dict[str, list[Any]]:
    """Return rows in the user's own columns as JSON has them, in each row of which a cell is missing."""
    shown = np.array(features)
    slices = origin.metadata.slices
    for row in range(len(shown)):
        if not np.isnan(shown[row]).any():
            shown[row, slices[row % len(slices)]] = np.nan
    frame = origin.encoder.decode(origin.units(shown))
    return {str(name): [_cell(one) for one in frame[name]] for name in frame}


def _cell(value: Any) -> Any:
    import pandas as pd

    if pd.isna(value):
        return None
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and value == np.float32(value):
        return float(str(np.float32(value)))  # no digits that were not there
    return value
