"""How spreadsheets are read: xlsx, xlsm, xlsb, xls and ods, through calamine.

- *header*: the first row with a value, behind the skipped ones. Names lose the white space around them. A column
  without a name is called ``column3`` after its position from 0; one without name and values counts as none.
- Rows without any value are left out. Numbers without a fraction count as integers: a spreadsheet knows no others.
- An empty cell is NULL, and so is an error such as ``#N/A``. What a formula gave when the file was saved is its value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from seeknal.dag.names import did_you_mean, find_name
from seeknal.errors import NodeFailedError, Place, Problem, ProjectError
from seeknal.nodes.cell_values import class_of
from seeknal.nodes.read_request import ReadRequest, check_file

_EXACT = 2.0**53

#: The params of a spreadsheet.
EXCEL_PARAMS = frozenset({"sheet_name", "header", "skip"})


def is_available() -> bool:
    """Say whether what reads spreadsheets is installed."""
    return find_spec("python_calamine") is not None


class ExcelTable:
    """The rows of one sheet of each file, in the order of the files. Only one file is in memory at a time."""

    def __init__(self, request: ReadRequest) -> None:
        self._request = request
        self._check_params()
        self._loaded: tuple[str, _Sheet] | None = None
        first = self._sheet(request.files[0])
        self._names = first.names
        for file in request.files[1:]:
            self._match(file)

    @property
    def own_types(self) -> Mapping[str, str | None]:
        return dict.fromkeys(self._names)

    def classes(self, names: Sequence[str]) -> Mapping[str, set[str]]:
        positions = [(name, self._names.index(name)) for name in names]
        found: dict[str, set[str]] = {name: set() for name in names}
        for row in self.rows():
            for name, position in positions:
                found[name].add(class_of(row[position]))
        return found

    def rows(self) -> Iterator[Sequence[Any]]:
        for file in self._request.files:
            sheet, order = self._sheet(file), self._match(file)
            for _, row in sheet.rows:
                yield [row[position] for position in order]

    def place(self, row: int) -> tuple[Place, str]:
        for file in self._request.files:
            sheet = self._sheet(file)
            if row <= len(sheet.rows):
                line = sheet.rows[row - 1][0]
                return Place(self._request.shown(file), line), f"row {line} of sheet '{sheet.name}'"
            row -= len(sheet.rows)
        raise IndexError(row)

    def close(self) -> None:
        self._loaded = None

    def _check_params(self) -> None:
        params = self._request.params
        problems: list[Problem] = []
        header, skip, sheet = params.get("header", True), params.get("skip", 0), params.get("sheet_name")
        if not isinstance(header, bool):
            problems.append(
                Problem(f"param 'header' must be true or false, not {header!r}", field=("params", "header"))
            )
        if isinstance(skip, bool) or not isinstance(skip, int) or skip < 0:
            problems.append(Problem(f"param 'skip' must be a number of rows, not {skip!r}", field=("params", "skip")))
        if sheet is not None and (isinstance(sheet, bool) or not isinstance(sheet, str | int)):
            problems.append(
                Problem(
                    f"param 'sheet_name' must be a name, or a number from 0, not {sheet!r}",
                    field=("params", "sheet_name"),
                )
            )
        if problems:
            raise ProjectError(problems)

    def _sheet(self, file: str) -> _Sheet:
        if self._loaded is None or self._loaded[0] != file:
            self._loaded = None
            self._loaded = (file, _Sheet(self._request, file))
        return self._loaded[1]

    def _match(self, file: str) -> list[int]:
        """Find the first file's columns in a file. Raises NodeFailedError where the two do not have the same."""
        names = self._sheet(file).names
        first = self._request.shown(self._request.files[0])
        place = Place(self._request.shown(file))
        declared = None if self._request.schema is None else [entry.name for entry in self._request.schema]
        hint = "declare in schema which columns to read"
        order = []
        for name in self._names:
            found = find_name(name, names)
            if found is None and (declared is None or find_name(name, declared) is not None):
                message = f"column '{name}' of {first} not found; the sheet has: {', '.join(names)}"
                raise NodeFailedError(message, place=place, hint=did_you_mean(name, names))
            order.append(names.index(found) if found is not None else 0)
        further = [name for name in names if find_name(name, self._names) is None]
        if further and declared is None:
            raise NodeFailedError(f"the sheet has column '{further[0]}', which {first} has not", place=place, hint=hint)
        return order


class _Sheet:
    """One sheet: its columns' names, and its rows with their numbers in the sheet, from 1."""

    def __init__(self, request: ReadRequest, file: str) -> None:
        from seeknal.nodes.foreign_table import refuse_alike

        self.name, cells = _cells(request, file)
        skip, header = int(request.params.get("skip", 0)), request.params.get("header", True)
        numbered = [
            (number, row)
            for number, row in enumerate(cells, 1)
            if number > skip and any(value is not None for value in row)
        ]
        place = Place(request.shown(file))
        if not numbered and (header or request.schema is None):
            message = f"sheet '{self.name}' is empty" + (f" behind the {skip} skipped rows" if skip else "")
            raise NodeFailedError(message, place=place, hint="name another with params.sheet_name")
        names: list[str | None] = [None] * (len(numbered[0][1]) if numbered else 0)
        if header:
            line, row = numbered.pop(0)
            place = Place(request.shown(file), line)
            names = [None if value is None else _name(value) for value in row]
        has_value = [any(row[index] is not None for _, row in numbered) for index in range(len(names))]
        kept = [index for index, name in enumerate(names) if name or has_value[index]]
        self.names = [names[index] or f"column{index}" for index in kept]
        if not header and request.schema is not None:
            self.names = self._declared(request, place)
        self.rows = [(number, [row[index] for index in kept]) for number, row in numbered]
        refuse_alike(self.names, place)

    def _declared(self, request: ReadRequest, place: Place) -> list[str]:
        """Without a header, the schema names the columns in order."""
        declared = [entry.name for entry in request.schema or ()]
        if not self.names or len(declared) == len(self.names):
            return declared
        if all(name in self.names for name in declared):
            return self.names
        message = f"the sheet has no header and {len(self.names)} columns, but schema declares {len(declared)}"
        hint = f"declare all columns in order, or name those to read: {', '.join(self.names[:3])}, …"
        raise NodeFailedError(message, place=place, hint=hint)


def _cells(request: ReadRequest, file: str) -> tuple[str, list[list[Any]]]:
    """A sheet's name and all of its cells, from the first row and column on. Raises NodeFailedError."""
    import python_calamine

    from seeknal.nodes.spreadsheet_size import too_large, too_large_unpacked

    check_file(request, file)
    place = Place(request.shown(file))
    if (too_much := too_large_unpacked(file)) is not None:
        raise NodeFailedError(too_much, place=place, hint="save what is needed of it as a file of its own")
    try:
        workbook = python_calamine.CalamineWorkbook.from_path(file)
        names = workbook.sheet_names
        wanted = request.params.get("sheet_name")
        if isinstance(wanted, int) and 0 <= wanted < len(names):
            wanted = names[wanted]
        if wanted is None and names:
            wanted = names[0]
        if wanted not in names:
            hint = did_you_mean(str(wanted), names) if names else ""
            listed = ", ".join(names)
            raise NodeFailedError(f"there is no sheet '{wanted}'; the file has: {listed}", place=place, hint=hint)
        too_many = too_large(file, str(wanted))
        if too_many is not None:
            hint = "delete the empty rows and columns behind the data, and save it again"
            raise NodeFailedError(too_many, place=place, hint=hint)
        rows = workbook.get_sheet_by_name(str(wanted)).to_python(skip_empty_area=False)
    except python_calamine.PasswordError as error:
        raise NodeFailedError("the file is protected by a password", place=place, hint="save it without") from error
    except (python_calamine.CalamineError, OSError) as error:
        message = f"the file cannot be read as a spreadsheet: {' '.join(str(error).split())}"
        raise NodeFailedError(message, place=place, hint="save it again, as .xlsx") from error
    return str(wanted), [[_value(value) for value in row] for row in rows]


def _value(value: Any) -> Any:
    if value == "":
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT:
        return int(value)
    return value


def _name(value: Any) -> str | None:
    from seeknal.nodes.cell_values import text_of

    return (text_of(value) or "").strip() or None
