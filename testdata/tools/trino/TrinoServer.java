import io.trino.Session;
import io.trino.plugin.iceberg.IcebergPlugin;
import io.trino.testing.DistributedQueryRunner;
import io.trino.testing.TestingSession;
import java.util.Map;

/**
 * A Trino coordinator with the Iceberg connector on 127.0.0.1, from Trino's
 * testing jars, since no server of this version is on Maven Central. Argument: the
 * port. Catalogs are made by CREATE CATALOG. It ends with its standard input.
 */
public final class TrinoServer
{
    private TrinoServer() {}

    public static void main(String[] args)
            throws Exception
    {
        Session session = TestingSession.testSessionBuilder().build();
        DistributedQueryRunner server = DistributedQueryRunner.builder(session)
                .setWorkerCount(0)
                .setCoordinatorProperties(Map.of("http-server.http.port", args[0]))
                .build();
        server.installPlugin(new IcebergPlugin());
        System.out.println("READY");
        while (System.in.read() >= 0) {
            // Nothing is said on it.
        }
        System.exit(0);
    }
}
