"""DuckDB: SQL in, rows out. The extensions are loaded from the wheels that carry them."""
import glob
import importlib.util
import os

import duckdb

import firnworker

con = duckdb.connect(":memory:")


def load(extensions):
    for name in extensions:
        folder = os.path.dirname(importlib.util.find_spec(f"duckdb_extension_{name}").origin)
        (path,) = glob.glob(f"{folder}/extensions/v{duckdb.__version__}/{name}.duckdb_extension")
        con.execute(f"LOAD '{path}'")
    con.execute("SET TimeZone='UTC'")


def sql(sql):
    cursor = con.execute(sql)
    if not con.description:
        return {"columns": [], "values": [], "rows": 0}
    # Arrow has DuckDB's UUID as text.
    types = {c[0]: "uuid" for c in con.description if str(c[1]) == "UUID"}
    table = cursor.to_arrow_table() if hasattr(cursor, "to_arrow_table") else cursor.fetch_arrow_table()
    return firnworker.result(table, types)


firnworker.serve({"load": load, "sql": sql})
