import java.util.ArrayList;
import java.util.List;

/** As much JSON as answers need, in ASCII. */
final class Json {
    private Json() {}

    /** An object whose members are added one by one. */
    static final class Members {
        private final List<String> members = new ArrayList<>();

        /** A value that is JSON already. */
        Members json(String name, String value) {
            members.add(quoted(name) + ":" + value);
            return this;
        }

        Members text(String name, String value) {
            return json(name, quoted(value));
        }

        Members number(String name, long value) {
            return json(name, Long.toString(value));
        }

        Members flag(String name, boolean value) {
            return json(name, Boolean.toString(value));
        }

        @Override
        public String toString() {
            return "{" + String.join(",", members) + "}";
        }
    }

    static String list(List<String> values) {
        return "[" + String.join(",", values) + "]";
    }

    /** Half a surrogate pair is no text: U+FFFD stands for it. */
    static String whole(String text) {
        StringBuilder whole = new StringBuilder(text.length());
        text.codePoints().forEach(point -> {
            boolean half = point >= Character.MIN_SURROGATE && point <= Character.MAX_SURROGATE;
            whole.appendCodePoint(half ? 0xfffd : point);
        });
        return whole.toString();
    }

    static String quoted(String text) {
        if (text == null) {
            return "null";
        }
        StringBuilder json = new StringBuilder("\"");
        for (char unit : whole(text).toCharArray()) {
            if (unit == '"' || unit == '\\') {
                json.append('\\').append(unit);
            } else if (unit >= ' ' && unit <= '~') {
                json.append(unit);
            } else {
                json.append(String.format("\\u%04x", (int) unit));
            }
        }
        return json.append('"').toString();
    }
}
