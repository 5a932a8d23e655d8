"""PyIceberg: reads and writes tables of a REST catalog."""
import json

import pyarrow as pa
from pyiceberg.catalog import load_catalog
from pyiceberg.table import StaticTable
from pyiceberg.types import ListType, MapType, StructType

import firnworker

catalogs = {}


def catalog(name, properties):
    catalogs[name] = load_catalog(name, **properties)
    return None


def load(catalog, table, properties=None):
    """A table by catalog and name or, without a catalog, by its metadata file."""
    if not catalog:
        return StaticTable.from_metadata(table, properties or {})
    return catalogs[catalog].load_table(table)


def type_name(t):
    """A type's name as the specification writes it; PyIceberg's own has ids in a struct's."""
    if isinstance(t, StructType):
        return "struct<" + ", ".join(f"{f.name}: {type_name(f.field_type)}" for f in t.fields) + ">"
    if isinstance(t, ListType):
        return f"list<{type_name(t.element_type)}>"
    if isinstance(t, MapType):
        return f"map<{type_name(t.key_type)}, {type_name(t.value_type)}>"
    return str(t)


def plan(t, snapshot=0, ref="", as_of_ms=0, columns=None, filter=""):
    kw = {}
    if as_of_ms:
        found = t.snapshot_as_of_timestamp(as_of_ms)
        if found is None:
            raise LookupError(f"no snapshot as of {as_of_ms} ms")
        snapshot = found.snapshot_id
    if snapshot:
        kw["snapshot_id"] = snapshot
    if columns:
        kw["selected_fields"] = tuple(columns)
    if filter:
        kw["row_filter"] = filter
    s = t.scan(**kw)
    return s.use_ref(ref) if ref else s


def scan(catalog, table, properties=None, **kw):
    s = plan(load(catalog, table, properties), **kw)
    types = {f.name: type_name(f.field_type) for f in s.projection().fields}
    return firnworker.result(s.to_arrow(), types)


def count(catalog, table, properties=None, **kw):
    return plan(load(catalog, table, properties), **kw).count()


def schema(catalog, table, properties=None):
    s = load(catalog, table, properties).schema()
    return [{"id": f.field_id, "name": f.name, "type": type_name(f.field_type), "required": f.required,
             "key": f.field_id in s.identifier_field_ids} for f in s.fields]


def snapshots(catalog, table, properties=None):
    t = load(catalog, table, properties)
    return [{"id": s.snapshot_id, "parent": s.parent_snapshot_id or 0, "sequence": s.sequence_number or 0,
             "timestamp_ms": s.timestamp_ms,
             "operation": s.summary.operation.value if s.summary else "",
             "summary": dict(s.summary.additional_properties) if s.summary else {}}
            for s in t.metadata.snapshots]


def append(catalog, table, rows):
    t = load(catalog, table)
    t.append(pa.Table.from_pylist(rows, schema=t.schema().as_arrow()))
    return None


def python(code, args=None):
    """Runs code with catalog(name), load, pa and args in scope; what it leaves in result is the answer."""
    scope = {"catalog": catalogs.__getitem__, "load": load, "pa": pa, "args": args, "result": None}
    exec(code, scope)
    return json.loads(json.dumps(scope["result"], default=str))


firnworker.serve({"catalog": catalog, "scan": scan, "count": count, "schema": schema,
                  "snapshots": snapshots, "append": append, "python": python})
