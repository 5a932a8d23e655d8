"""What the engine workers share: a loop of JSON lines, and the rendering of values.

A request is {"op": ..., ...}; an answer {"ok": ...} or {"error": text}. Rows go
out as columns with Iceberg type names and values as text, null for NULL, arrays
as JSON arrays; the caller brings floats to one form.
"""
import json
import os
import sys
import traceback

# Whatever a library prints must not mix with the answers.
_answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)


def serve(ops):
    """Answers requests from standard input until it ends."""
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"ok": ops[request.pop("op")](**request)}
        except Exception as e:
            traceback.print_exc()
            answer = {"error": f"{type(e).__name__}: {e}"}
        json.dump(answer, _answers)
        _answers.write("\n")
        _answers.flush()


def date_text(days):
    """Days since 1970 as an ISO date; years before 1 are astronomical (0000 is 1 BC)."""
    z = days + 719468
    era, doe = divmod(z, 146097)
    yoe = (doe - doe // 1460 + doe // 36524 - doe // 146096) // 365
    doy = doe - (365 * yoe + yoe // 4 - yoe // 100)
    mp = (5 * doy + 2) // 153
    m = mp + 3 if mp < 10 else mp - 9
    y = yoe + era * 400 + (m <= 2)
    sign = "-" if y < 0 else ""
    return f"{sign}{abs(y):04d}-{m:02d}-{doy - (153 * mp + 2) // 5 + 1:02d}"


def time_text(us):
    """Microseconds since midnight."""
    s, us = divmod(us, 1_000_000)
    return f"{s // 3600:02d}:{s // 60 % 60:02d}:{s % 60:02d}.{us:06d}"


def timestamp_text(us, zoned):
    """Microseconds since 1970; a zoned one ends in Z."""
    days, rest = divmod(us, 86_400_000_000)
    return f"{date_text(days)} {time_text(rest)}{'Z' if zoned else ''}"


def uuid_text(b):
    h = b.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def type_name(t):
    """The Iceberg type that an Arrow type stands for."""
    import pyarrow.types as pt
    if isinstance(t, __import__("pyarrow").BaseExtensionType):
        return "uuid" if t.extension_name == "arrow.uuid" else type_name(t.storage_type)
    if pt.is_boolean(t):
        return "boolean"
    if pt.is_int8(t) or pt.is_int16(t) or pt.is_int32(t) or pt.is_uint8(t) or pt.is_uint16(t):
        return "int"
    if pt.is_integer(t):
        return "long"
    if pt.is_float32(t):
        return "float"
    if pt.is_float64(t):
        return "double"
    if pt.is_decimal(t):
        return f"decimal({t.precision}, {t.scale})"
    if pt.is_string(t) or pt.is_large_string(t) or pt.is_string_view(t):
        return "string"
    if pt.is_fixed_size_binary(t):
        return f"fixed[{t.byte_width}]"
    if pt.is_binary(t) or pt.is_large_binary(t) or pt.is_binary_view(t):
        return "binary"
    if pt.is_date(t):
        return "date"
    if pt.is_time(t):
        return "time"
    if pt.is_timestamp(t):
        return "timestamptz" if t.tz else "timestamp"
    if pt.is_list(t) or pt.is_large_list(t) or pt.is_fixed_size_list(t):
        return f"list<{type_name(t.value_type)}>"
    if pt.is_map(t):
        return f"map<{type_name(t.key_type)}, {type_name(t.item_type)}>"
    if pt.is_struct(t):
        return "struct<" + ", ".join(f"{f.name}: {type_name(f.type)}" for f in t) + ">"
    if pt.is_dictionary(t):
        return type_name(t.value_type)
    return str(t)


def texts(a):
    """An Arrow array's values as text, None for null."""
    import pyarrow as pa
    import pyarrow.types as pt
    t = a.type
    if isinstance(t, pa.BaseExtensionType):
        if t.extension_name == "arrow.uuid":
            return [None if v is None else uuid_text(v) for v in a.storage.to_pylist()]
        return texts(a.storage)
    if pt.is_dictionary(t):
        return texts(a.dictionary_decode())
    if pt.is_boolean(t) or pt.is_integer(t):
        return a.cast(pa.string()).to_pylist()
    if pt.is_floating(t):
        return [None if v is None else repr(v) for v in a.to_pylist()]
    if pt.is_decimal(t):
        return [None if v is None else format(v, "f") for v in a.to_pylist()]
    if pt.is_string(t) or pt.is_large_string(t) or pt.is_string_view(t):
        return a.to_pylist()
    if pt.is_date32(t):
        return [None if v is None else date_text(v) for v in a.cast(pa.int32()).to_pylist()]
    if pt.is_time(t):
        us = a.cast(pa.time64("us")).cast(pa.int64()).to_pylist()
        return [None if v is None else time_text(v) for v in us]
    if pt.is_timestamp(t):
        us = a.cast(pa.timestamp("us", tz=t.tz)).cast(pa.int64()).to_pylist()
        return [None if v is None else timestamp_text(v, t.tz is not None) for v in us]
    if pt.is_map(t):
        keys, items, at = texts(a.keys), texts(a.items), a.offsets.to_pylist()
        return [[[keys[j], items[j]] for j in range(at[i], at[i + 1])] if a[i].is_valid else None
                for i in range(len(a))]
    if pt.is_list(t) or pt.is_large_list(t):
        values, at, valid = texts(a.values), a.offsets.to_pylist(), a.is_valid().to_pylist()
        return [values[at[i]:at[i + 1]] if valid[i] else None for i in range(len(a))]
    if pt.is_struct(t):
        fields = {f.name: texts(a.field(i)) for i, f in enumerate(t)}
        valid = a.is_valid().to_pylist()
        return [{n: v[i] for n, v in fields.items()} if valid[i] else None for i in range(len(a))]
    if pt.is_fixed_size_binary(t) or pt.is_binary(t) or pt.is_large_binary(t) or pt.is_binary_view(t):
        return [None if v is None else v.hex() for v in a.to_pylist()]
    if pt.is_null(t):
        return [None] * len(a)
    raise TypeError(f"no text form for Arrow type {t}")


def result(table, types=None):
    """An Arrow table as an answer; types names columns' Iceberg types where Arrow's do not tell."""
    columns, values = [], []
    for i, field in enumerate(table.schema):
        name = (types or {}).get(field.name) or type_name(field.type)
        column = []
        for chunk in table.column(i).chunks:
            column += texts(chunk)
        if name == "uuid":
            column = [v if v is None or "-" in v else uuid_text(bytes.fromhex(v)) for v in column]
        columns.append({"name": field.name, "type": name})
        values.append(column)
    return {"columns": columns, "values": values, "rows": table.num_rows}
