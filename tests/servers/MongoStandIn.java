import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.backend.memory.MemoryBackend;
import de.bwaldvogel.mongo.bson.Document;
import de.bwaldvogel.mongo.exception.MongoServerError;
import io.netty.channel.Channel;
import java.util.Collection;
import java.util.List;
import java.util.Locale;

/** mongo-java-server, made to answer today's drivers, and to refuse what it would silently do otherwise than MongoDB. */
public class MongoStandIn extends MemoryBackend {
    static MongoServerError refused(String what) {
        return new MongoServerError(238, "NotImplemented", what + " is not supported by this stand-in");
    }

    static void refuse(String command, String name, Document query) throws MongoServerError {
        for (String key : List.of("collation", "viewOn", "validator", "timeseries", "tailable"))
            if (query.get(key) != null && !Boolean.FALSE.equals(query.get(key))) throw refused(name + " with " + key);
        String projection = "(?s).*\\$(?!slice|elemMatch|meta).*";
        if (command.equals("find") && String.valueOf(query.get("projection")).matches(projection))
            throw refused("projection expression");
        String index = "(?s).*(partialFilterExpression|\"(text|2d|2dsphere|hashed)\"|\\$\\*\\*|collation).*";
        if (command.equals("createindexes") && query.toString().matches(index)) throw refused("index type or option");
        if (command.equals("aggregate") && !(query.get(name) instanceof String)) throw refused("database-level aggregate");
    }

    @Override
    public Document handleCommand(Channel channel, String database, String name, Document query) {
        String command = name.toLowerCase(Locale.ROOT);
        try {
            refuse(command, name, query);
            if (command.equals("getmore") && query.get("batchSize") == null) query.append("batchSize", 1000);
            if (command.equals("hello"))
                return super.handleCommand(channel, database, "ismaster", query).append("isWritablePrimary", true);
            if (command.equals("connectionstatus")) database = "admin";
            Document reply = super.handleCommand(channel, database, name, query);
            // Drivers want the size.
            if (command.equals("listdatabases"))
                for (Object one : (Collection<?>) reply.get("databases")) ((Document) one).append("sizeOnDisk", 4096L);
            // The filter is ignored.
            if (command.equals("listcollections") && query.get("filter") instanceof Document filter && filter.get("name") != null)
                ((Collection<?>) ((Document) reply.get("cursor")).get("firstBatch"))
                    .removeIf(one -> !filter.get("name").equals(((Document) one).get("name")));
            return reply;
        } catch (MongoServerError error) {
            throw error;
        } catch (RuntimeException error) {
            if (command.equals("drop") && String.valueOf(error.getMessage()).contains("ns not found")) return new Document("ok", 1.0);
            // Without a code, which drivers want.
            throw new MongoServerError(238, "NotImplemented", String.valueOf(error.getMessage()));
        }
    }

    public static void main(String[] arguments) {
        // The versions it knows are older than what drivers take.
        MongoVersion version = new MongoVersion() {
            @Override
            public List<Integer> getVersionArray() {
                return List.of(7, 0, 0);
            }

            @Override
            public int getWireVersion() {
                return 21;
            }
        };
        MongoServer server = new MongoServer(new MongoStandIn().version(version));
        // For change streams.
        server.enableOplog();
        try {
            server.bind("127.0.0.1", Integer.parseInt(arguments[0]));
        } catch (Exception error) {
            // Its threads would keep it from ending.
            error.printStackTrace();
            System.exit(1);
        }
        System.out.println("ready");
    }
}
