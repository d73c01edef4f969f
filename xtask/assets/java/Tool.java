import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/**
 * Sends to ActiveMQ and reads from it with ActiveMQ's own client, as it is told.
 *
 * <p>A command is a line of words {@code key=value} on standard input, values URL-encoded: {@code id} comes back
 * with the answer, {@code command} says what to do, {@code url}, {@code username} and {@code password} where.
 * Each command is answered by one line of JSON on standard output, {@code {"id":…,"answer":…}} or
 * {@code {"id":…,"error":…}}. Commands do not wait for each other. The end of the input is the end of the process,
 * whatever is still going on.
 */
public final class Tool {
    private Tool() {}

    public static void main(String[] arguments) throws IOException {
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        // Whatever a library prints goes elsewhere.
        PrintStream output = new PrintStream(System.out, true, StandardCharsets.US_ASCII);
        System.setOut(System.err);
        ExecutorService workers = Executors.newCachedThreadPool();
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            Request request = Request.parse(line);
            workers.execute(() -> output.println(answer(request)));
        }
        Runtime.getRuntime().halt(0);
    }

    private static String answer(Request request) {
        String id = "\"id\":" + Json.quoted(request.text("id", ""));
        try {
            return "{" + id + ",\"answer\":" + perform(request) + "}";
        } catch (Exception problem) {
            return "{" + id + ",\"error\":" + Json.quoted(problem.toString()) + "}";
        }
    }

    private static String perform(Request request) throws Exception {
        switch (request.text("command")) {
            case "produce":
                return Producing.produce(request);
            case "catalogue":
                return Catalogue.send(request);
            case "browse":
                return Reading.browse(request);
            case "consume":
                return Reading.consume(request);
            case "statistics":
                return Reading.statistics(request);
            case "delete":
                return Broker.delete(request);
            default:
                throw new IllegalArgumentException("there is no such command: " + request.text("command"));
        }
    }
}
