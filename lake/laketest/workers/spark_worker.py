"""Spark with Iceberg: SQL in, rows out. Arguments: the folder of the Iceberg jars, a scratch folder."""
import glob
import sys

from pyspark.sql import SparkSession
from pyspark.sql import types as st

import firnworker

jars, scratch = sys.argv[1:]
spark = (SparkSession.builder.master("local[2]").appName("firn-tests")
         .config("spark.jars", ",".join(sorted(glob.glob(f"{jars}/*.jar"))))
         .config("spark.driver.memory", "1g")
         .config("spark.driver.host", "127.0.0.1")
         .config("spark.driver.bindAddress", "127.0.0.1")
         .config("spark.ui.enabled", "false")
         .config("spark.sql.shuffle.partitions", "2")
         .config("spark.sql.session.timeZone", "UTC")
         .config("spark.sql.warehouse.dir", f"{scratch}/warehouse")
         .config("spark.local.dir", scratch)
         .config("spark.driver.extraJavaOptions", f"-Dderby.system.home={scratch} -Djava.io.tmpdir={scratch}")
         .config("spark.sql.extensions", "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions")
         .getOrCreate())
spark.sparkContext.setLogLevel("WARN")

NAMES = {st.BooleanType: "boolean", st.ByteType: "int", st.ShortType: "int", st.IntegerType: "int",
         st.LongType: "long", st.FloatType: "float", st.DoubleType: "double", st.DateType: "date",
         st.TimestampType: "timestamptz", st.TimestampNTZType: "timestamp", st.StringType: "string",
         st.BinaryType: "binary", st.NullType: "string"}


def type_name(t):
    if isinstance(t, st.DecimalType):
        return f"decimal({t.precision}, {t.scale})"
    if isinstance(t, st.ArrayType):
        return f"list<{type_name(t.elementType)}>"
    if isinstance(t, st.MapType):
        return f"map<{type_name(t.keyType)}, {type_name(t.valueType)}>"
    if isinstance(t, st.StructType):
        return "struct<" + ", ".join(f"{f.name}: {type_name(f.dataType)}" for f in t) + ">"
    for k, name in NAMES.items():
        if isinstance(t, k):
            return name
    return t.simpleString()


def plain(t, e, depth=0):
    """SQL that turns an expression into what Python can hold whatever its value (it has no year 10000)."""
    x = f"x{depth}"
    if isinstance(t, st.DateType):
        return f"unix_date({e})"
    if isinstance(t, st.TimestampType):
        return f"unix_micros({e})"
    if isinstance(t, st.TimestampNTZType):
        return f"unix_micros(cast({e} as timestamp))"
    if isinstance(t, st.BinaryType):
        return f"lower(hex({e}))"
    if isinstance(t, st.ArrayType):
        return f"transform({e}, {x} -> {plain(t.elementType, x, depth + 1)})"
    if isinstance(t, st.MapType):
        return (f"transform(map_entries({e}), {x} -> struct({plain(t.keyType, x + '.key', depth + 1)}, "
                f"{plain(t.valueType, x + '.value', depth + 1)}))")
    if isinstance(t, st.StructType):
        inner = ", ".join(plain(f.dataType, f"{e}.{quoted(f.name)}", depth + 1) for f in t)
        return f"if({e} is null, null, struct({inner}))"
    if isinstance(t, (st.StringType, st.DecimalType)):
        return e
    return f"cast({e} as string)"


def text(t, v):
    """The text form of what plain gave."""
    if v is None:
        return None
    if isinstance(t, st.DateType):
        return firnworker.date_text(v)
    if isinstance(t, (st.TimestampType, st.TimestampNTZType)):
        return firnworker.timestamp_text(v, isinstance(t, st.TimestampType))
    if isinstance(t, st.DecimalType):
        return f"{v:.{t.scale}f}"  # Spark pickles 1E-8 as 1.0E-8
    if isinstance(t, st.ArrayType):
        return [text(t.elementType, x) for x in v]
    if isinstance(t, st.MapType):
        return [[text(t.keyType, x[0]), text(t.valueType, x[1])] for x in v]
    if isinstance(t, st.StructType):
        return {f.name: text(f.dataType, v[i]) for i, f in enumerate(t)}
    return v


def quoted(name):
    return "`" + name.replace("`", "``") + "`"


def sql(sql):
    frame = spark.sql(sql)
    fields = frame.schema.fields
    # By position: a join may give two columns one name.
    rows = frame.toDF(*[f"c{i}" for i in range(len(fields))]).selectExpr(
        *[plain(f.dataType, f"c{i}") + f" as c{i}" for i, f in enumerate(fields)]).collect() if fields else []
    return {"columns": [{"name": f.name, "type": type_name(f.dataType)} for f in fields],
            "values": [[text(f.dataType, r[i]) for r in rows] for i, f in enumerate(fields)],
            "rows": len(rows)}


def catalog(name, properties):
    spark.conf.set(f"spark.sql.catalog.{name}", "org.apache.iceberg.spark.SparkCatalog")
    for k, v in properties.items():
        spark.conf.set(f"spark.sql.catalog.{name}.{k}", v)
    return None


firnworker.serve({"sql": sql, "catalog": catalog})
