import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;

/** One command and what belongs to it. */
final class Request {
    private final Map<String, String> words = new LinkedHashMap<>();

    static Request parse(String line) {
        Request request = new Request();
        for (String word : line.trim().split(" ")) {
            int end = word.indexOf('=');
            if (end > 0) {
                String value = URLDecoder.decode(word.substring(end + 1), StandardCharsets.UTF_8);
                request.words.put(word.substring(0, end), value);
            }
        }
        return request;
    }

    String text(String key) {
        String value = words.get(key);
        if (value == null) {
            throw new IllegalArgumentException("`" + key + "` is missing");
        }
        return value;
    }

    String text(String key, String otherwise) {
        return words.getOrDefault(key, otherwise);
    }

    long number(String key, long otherwise) {
        String value = words.get(key);
        return value == null ? otherwise : Long.parseLong(value);
    }

    boolean flag(String key) {
        return Boolean.parseBoolean(words.get(key));
    }

    boolean has(String key) {
        return words.containsKey(key);
    }

    /** The words whose keys begin like this, without the beginning. */
    Map<String, String> below(String beginning) {
        Map<String, String> found = new LinkedHashMap<>();
        words.forEach((key, value) -> {
            if (key.startsWith(beginning)) {
                found.put(key.substring(beginning.length()), value);
            }
        });
        return found;
    }
}
