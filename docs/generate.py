#!/usr/bin/env python3
"""Makes what says the same as config/schema/ostler.schema.json in other words: the reference in
docs/configuration.md, the keys in ostler.yaml(5), the options in ostlerd(8), and ostlerd's
completions.

usage: docs/generate.py [--check]

--check changes nothing, and names what is out of step with the schema; exit status 1 if there is
any. Needs Python's standard library alone.
"""

import json
import re
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = ROOT / "config/schema/ostler.schema.json"
NOTE = "Made by docs/generate.py from config/schema/ostler.schema.json; do not edit."

# What patterns stand for, in words.
PATTERNS = {"/": "a path with a slash",
            "^(100|[1-9]?[0-9])%$": "0% to 100%",
            "^(SIG)?(TERM|INT|QUIT|HUP|USR1|USR2|WINCH)$":
                "TERM, INT, QUIT, HUP, USR1, USR2 or WINCH",
            "^[ -9;-~]{1,255}$": "text of 1 to 255 characters",
            "^(unix|[0-9A-Fa-f.:]+(/[0-9]{1,3})?)$": "addresses, networks or unix",
            "^[^=\\u0000-\\u001f\\u007f]+$": "names"}
DEFINED = {"path": "a path", "mode": "an octal mode", "account": "a name or number",
           "address": "an address", "listener": "a map", "request": "a request", "off": "off",
           "text": "text", "pool": "a map of keys of a pool",
           "host": "a host", "headers": "a map of names and values",
           "expect": "a status, a range such as 200-399, or a list of them"}


# ---- The schema, read ----------------------------------------------------------------------------

@dataclass
class Key:
    """One key: its dotted name in its table, and its part of the schema."""
    table: str  # "file", "pool" or "listener"
    name: str
    part: dict

    @property
    def parent(self):
        return self.name.rpartition(".")[0]

    @property
    def default(self):
        """As it is written, or in words; None for a map of keys that have their own."""
        if "default" in self.part and self.part["default"] != {}:
            return flow(self.part["default"])
        if "x-default" in self.part:
            return self.part["x-default"]
        return "{}" if self.part.get("default") == {} and not self.is_map else None

    @property
    def default_is_words(self):
        return "default" not in self.part

    @property
    def is_map(self):
        """Whether its keys are told one by one."""
        return "properties" in self.part

    @property
    def is_section(self):
        """Whether it is nothing but the map of its keys."""
        return self.is_map and self.part.get("type") == "object"


class Schema:
    def __init__(self, text):
        self.root = json.loads(text)
        self.definitions = self.root["$defs"]
        self.keys = [*self._below("file", self.root),
                     *self._below("pool", self.definitions["pool"]),
                     *self._below("listener", self.definitions["listener"])]

    def _below(self, table, part, prefix=""):
        for name, value in part["properties"].items():
            yield Key(table, prefix + name, value)
            if "properties" in value:
                yield from self._below(table, value, prefix + name + ".")

    def table(self, name):
        return [key for key in self.keys if key.table == name]

    # ---- What a key may be, in words

    def kind(self, part):
        return any_of(list(dict.fromkeys(self._kinds(part))))

    def _kinds(self, part):
        """Each thing that it may be."""
        if "$ref" in part:
            yield from self._defined(part["$ref"].rpartition("/")[2], part)
        elif "anyOf" in part:
            for one in part["anyOf"]:
                yield from self._kinds(one)
        elif "const" in part:
            yield flow(part["const"])
        elif "enum" in part:
            yield from (flow(one) for one in part["enum"] if one not in (None, False))
        elif part.get("type") == "array":
            yield "a list of " + self._plural(part["items"])
        elif part.get("type") in ("integer", "number"):
            of = "a whole number" if part["type"] == "integer" else "a number"
            yield f"{of} from {number(part['minimum'])} to {number(part['maximum'])}"
        elif part.get("type") == "boolean":
            yield from ("true", "false")
        elif part.get("type") == "object":
            yield self._map(part)
        else:
            yield PATTERNS.get(part.get("pattern"), "text")

    def _defined(self, name, part):
        if name in ("duration", "pause", "size"):
            bounds = {**self.definitions[name], **part}
            what = "a size" if name == "size" else "a duration"
            yield f"{what} from {bounds['x-least']} to {bounds['x-most']}"
        else:
            yield DEFINED[name]

    def _map(self, part):
        of = part.get("additionalProperties")
        if not isinstance(of, dict):
            return "a map"
        return "a map of names and " + ("pools" if self._is(of, "pool") else "values")

    @staticmethod
    def _is(part, name):
        return part.get("$ref") == f"#/$defs/{name}"

    def _plural(self, part):
        names = {"text": "words", "request": "requests", "address": "addresses",
                 "listener": "maps", "probe": "maps"}
        if "anyOf" in part:
            return " or ".join(self._plural(one) for one in part["anyOf"])
        ref = part.get("$ref", "").rpartition("/")[2]
        return names.get(ref) or PATTERNS.get(part.get("pattern"), "paths and patterns")

    def choices(self, part):
        """The words that it may be."""
        if "$ref" in part:
            return self.choices(self.definitions[part["$ref"].rpartition("/")[2]])
        found = [one for option in part.get("anyOf", []) for one in self.choices(option)]
        found += [one for one in part.get("enum", []) if isinstance(one, str)]
        found += [part["const"]] if "const" in part else []
        if part.get("type") == "boolean":
            found += ["true", "false"]
        signals = re.fullmatch(r"\^\(SIG\)\?\((.*)\)\$", part.get("pattern", ""))
        return found + (signals[1].split("|") if signals else [])


def number(value):
    return f"{value:d}" if isinstance(value, int) else f"{value:g}"


def any_of(words):
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


# ---- YAML ----------------------------------------------------------------------------------------

PLAIN = re.compile(r"[A-Za-z/][\w./*-]*|--?[a-z][\w-]*|\d+(ms|[smhd]|[KMG]iB|%)")


def flow(value):
    """In one line, texts in quotes where they have to be or where people put them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, list):
        return "[" + ", ".join(flow(one) for one in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {flow(one)}" for name, one in value.items()) + "}"
    if not isinstance(value, str):
        return str(value)
    return value if PLAIN.fullmatch(value) else '"' + value.replace('"', '\\"') + '"'


def nested(pairs):
    """{"a.b": 1, "c": 2} as {"a": {"b": 1}, "c": 2}"""
    out = {}
    for name, value in pairs.items():
        where = out
        *path, last = name.split(".")
        for step in path:
            where = where.setdefault(step, {})
        where[last] = value
    return out


def example(key, value):
    """The map in which VALUE is an example of KEY, with what has to be beside it."""
    pairs = {**key.part.get("x-with", {}), key.name: value}
    if key.table == "listener":
        return {"listen": [nested({"address": "tcp://127.0.0.1:8080", **pairs})]}
    return nested(pairs)


def example_text(key, value):
    return flow(example(key, value))[1:-1]


# ---- docs/configuration.md -----------------------------------------------------------------------

CODE = re.compile(r"\{(?:fd|slot|pool|generation|after)[^}]*\}|\b[A-Z_]+=\d\b|\b[A-Z]+_[A-Z_]+\b"
                  r"|(?:tcp|unix|inherit):[^\s,;()]+|\bunix:@\w+|\b(?:[a-z]+[._])+[a-z]+\b(?!\()"
                  r"|\baccept: \w+|\bby: \w+")


def marked_up(text, words=()):
    """Prose with what one types as code."""
    pattern = CODE.pattern
    if words:
        pattern += r"|\b(?:" + "|".join(map(re.escape, words)) + r")(?=[:,]| \()"
    return re.sub(pattern, lambda match: f"`{match[0]}`", text).replace("*", "\\*")


def markdown_default(key):
    if key.default is None:
        return ""
    return marked_up(key.default) if key.default_is_words else f"`{key.default}`"


def markdown_key(schema, key):
    """A heading and what is under it; the keys of a map as a table."""
    lines = [f"### `{key.name}`", ""]
    if not key.is_section:
        lines += [f"Value: {markdown_kind(schema, key)}. Default: {markdown_default(key)}.", ""]
    lines += [marked_up(key.part["description"], schema.choices(key.part)), ""]
    below = [one for one in schema.table(key.table) if one.parent == key.name]
    if below:
        lines += ["| key | what it may be | default | meaning |", "| --- | --- | --- | --- |"]
        lines += [markdown_row(schema, one) for one in below] + [""]
    elif "examples" in key.part:
        lines += [markdown_examples(key), ""]
    return lines


def markdown_examples(key):
    texts = [markdown_example(key, value) for value in key.part["examples"]]
    return f"Example{'s' if len(texts) > 1 else ''}: " + ", ".join(texts)


def markdown_example(key, value):
    whole = example(key, value)
    first, *beside = [flow({name: part})[1:-1] for name, part in reversed(whole.items())]
    return f"`{first}`" + "".join(f" beside `{one}`" for one in beside)


def markdown_row(schema, key):
    cells = [f"`{key.name}`", markdown_kind(schema, key), markdown_default(key),
             marked_up(key.part["description"], schema.choices(key.part)) + "<br>" +
             markdown_examples(key)]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def markdown_kind(schema, key):
    words = "|".join(map(re.escape, schema.choices(key.part)))
    kind = schema.kind(key.part)
    return re.sub(rf"(?<![\w%])(?:{words})(?!\w)", r"`\g<0>`", kind) if words else kind


def markdown(schema):
    lines = ["## The keys of the file", ""]
    for key in schema.table("file"):
        lines += markdown_key(schema, key) if not key.parent else []
    lines += ["## The keys of a pool", ""]
    for key in schema.table("pool"):
        lines += markdown_key(schema, key) if not key.parent else []
    lines += ["## The keys of a listener", "",
              "An item of [`listen`](#listen) is an address, or a map of these.", "",
              "| key | what it may be | default | meaning |", "| --- | --- | --- | --- |"]
    lines += [markdown_row(schema, key) for key in schema.table("listener")]
    return "\n".join(lines) + "\n"


# ---- Manual pages --------------------------------------------------------------------------------

def roff(text):
    """Text for a line of mdoc(7), which begins no request."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("×", "\\(mu").replace("…", "...")
    return "\\&" + text if text[:1] in (".", "'") else text


def sentences(text):
    """Each on lines of its own, as manuals are written, and none of them long."""
    return [line for one in re.split(r"(?<=[.:]) (?=[A-Z{])", text)
            for line in textwrap.wrap(one, 76, break_long_words=False, break_on_hyphens=False)]


def quoted(text):
    """One argument of a macro."""
    return '"' + roff(text).replace('"', '\\(dq') + '"'


def manual_key(schema, key, full_name):
    lines = [f".It Cm {roff(full_name)}"]
    lines += [roff(one) for one in sentences(key.part["description"])]
    if not key.is_section:
        lines += [*map(roff, sentences(f"Value: {schema.kind(key.part)}.")),
                  roff(f"Default: {key.default}.")]
    if "examples" in key.part and not (key.is_section and key.table == "pool"):
        own, value = list(example(key, key.part["examples"][0]).items())[-1]
        lines += [f".Dl {quoted(flow({own: value})[1:-1])}"]
    return lines


def manual_keys(schema):
    lines = []
    for title, table, prefix in (("The file", "file", ""), ("A pool", "pool", ""),
                                 ("A listener", "listener", "listen.")):
        lines += [f".Ss {title}", ".Bl -tag -width Ds"]
        for key in schema.table(table):
            lines += manual_key(schema, key, prefix + key.name)
        lines += [".El"]
    return "\n".join(lines) + "\n"


# ---- ostlerd's options ---------------------------------------------------------------------------

@dataclass
class Option:
    """One of ostlerd's own, or one that stands for a key."""
    name: str
    value: str  # what is to be given, in a word; "" for nothing
    help: str
    choices: list
    files: str = ""  # "file", "directory" or ""
    repeatable: bool = False
    default: str = ""


OWN = [Option("config", "FILE", "the configuration file", [], "file"),
       Option("check", "", "read the configuration, say every fault, start nothing", []),
       Option("print-config", "", "print the effective configuration, defaults filled in", []),
       Option("set", "KEY=VALUE", "override one value of the file", [], "", True),
       Option("trace", "FILE", "record every decision in a file, for bug reports", [], "file"),
       Option("help", "", "print a summary of all options", []),
       Option("version", "", "print the version", [])]
ACCOUNTS = ("user", "group")
VALUES = {"duration": "DURATION", "pause": "DURATION", "size": "SIZE", "path": "PATH",
          "mode": "MODE", "request": "REQUEST", "host": "HOST", "expect": "STATUSES"}


def options(schema):
    keys = [key for key in schema.table("pool") if key.name != "command" and not key.is_section]
    keys = [key for key in keys if not key.name.startswith("ready.")]
    file = {key.name: key for key in schema.table("file")}
    found = [option_of(schema, key, key.name) for key in keys]
    found += [option_of(schema, file["control.socket"], "socket")]
    found += [option_of(schema, key, name) for name, key in file.items() if name.startswith("log.")]
    return found


def option_of(schema, key, name):
    ref = next((one["$ref"].rpartition("/")[2] for one in (key.part, *key.part.get("anyOf", []))
                if "$ref" in one and one["$ref"] != "#/$defs/off"), "")
    kind = "NUMBER" if key.part.get("type") in ("integer", "number") else VALUES.get(ref, "VALUE")
    value = {"listen": "ADDRESS", "env": "NAME=VALUE", "health.headers": "NAME=VALUE",
             "warmup": "REQUEST", "user": "USER",
             "group": "GROUP"}.get(name, kind)
    files = "directory" if name == "directory" else \
            "file" if ref == "path" or "a path" in schema.kind(key.part) else ""
    choices = [word for word in schema.choices(key.part) if word != "false" or "true" in
               schema.choices(key.part)]
    return Option(re.sub(r"[._]", "-", name), value, key.part["title"], choices, files,
                  name in ("listen", "env", "warmup", "health.headers"),
                  "" if key.default_is_words or key.default in ("[]", "{}", None) or
                  "unless given" in key.part["title"] else key.default)


def manual_options(schema):
    lines = [".Bl -tag -width Ds"]
    for option in options(schema):
        first = re.match(r"\w*", option.help)[0]
        text = option.help if first in option.choices else option.help[0].upper() + option.help[1:]
        lines += [f".It Fl {roff('-' + option.name)} Ar {roff(option.value.lower())}"]
        lines += [roff(one) for one in sentences(text + ".")]
        if option.default:
            lines += [roff(f"Default: {option.default}.")]
        if option.repeatable:
            lines += ["May be repeated."]
    return "\n".join(lines + [".El"]) + "\n"


# ---- ostlerd's completions -----------------------------------------------------------------------

BASH = r"""# Completion of ostlerd for bash. {note}

_ostlerd() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} i words
  COMPREPLY=()
  # After -- there is a command: its name, then files.
  for ((i = 1; i < COMP_CWORD; i++)); do
    [[ ${{COMP_WORDS[i]}} == -- ]] || continue
    compopt -o filenames
    if ((i == COMP_CWORD - 1)); then
      mapfile -t COMPREPLY < <(compgen -A command -- "$cur"; compgen -A file -- "$cur")
    else
      mapfile -t COMPREPLY < <(compgen -A file -- "$cur")
    fi
    return
  done
  # "=" is a word of its own, as bash splits the line.
  if [[ $cur == = ]]; then
    cur=''
  elif [[ $prev == = ]]; then
    prev=${{COMP_WORDS[COMP_CWORD-2]}}
  fi
  words=''
  case $prev in
{cases}    {users})
      mapfile -t COMPREPLY < <(compgen -A user -- "$cur")
      return ;;
    {groups})
      mapfile -t COMPREPLY < <(compgen -A group -- "$cur")
      return ;;
    {directories})
      compopt -o filenames
      mapfile -t COMPREPLY < <(compgen -A directory -- "$cur")
      return ;;
    {nothing})
      return ;;
  esac
  if [[ $prev == @({files}) ]]; then
    compopt -o filenames
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur"; compgen -A file -- "$cur")
    return
  fi
  [[ -n $words ]] || words='{all}'
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}}
complete -F _ostlerd ostlerd
"""


def bash(schema):
    every = OWN + options(schema)
    files = [f"--{one.name}" for one in every if one.files == "file"] + ["-c"]
    with_words = [one for one in every if one.choices]
    taken = {one.name for one in with_words} | {one.name for one in every if one.files}
    cases = "".join(f"    --{one.name}) words='{' '.join(one.choices)}' ;;\n" for one in with_words)
    nothing = [f"--{one.name}" for one in every
               if one.value and one.name not in taken and one.name not in ACCOUNTS]
    return BASH.format(
        note=NOTE, cases=cases, users="--user", groups="--group", directories="--directory",
        nothing=" | ".join(nothing), files="|".join(files),
        all=" ".join([f"--{one.name}" for one in every] + ["--"]))


def zsh_action(option):
    if option.name == "user":
        return "_users"
    if option.name == "group":
        return "_groups"
    if option.files == "directory":
        return "_files -/"
    words = "(" + " ".join(option.choices) + ")" if option.choices else ""
    if option.files:
        return f"_alternative 'files\\:file\\:_files' 'words\\:word\\:{words}'".replace("'", '"') \
            if words else "_files"
    return words or " "


def zsh(schema):
    def spec(option):
        help_text = option.help.replace("[", "(").replace("]", ")").replace(":", "\\:")
        help_text = help_text.replace("'", "’")
        star = "*" if option.repeatable else ""
        value = f"={'' if not option.value else ''}[{help_text}]" if option.value \
            else f"[{help_text}]"
        word = option.value.lower().replace("=", "\\=")
        rest = f":{word}:{zsh_action(option)}" if option.value else ""
        return f"  '{star}--{option.name}{value}{rest}'"
    lines = [spec(one) for one in OWN + options(schema)]
    lines.insert(1, "  '-c[the configuration file]:file:_files'")
    return (f"#compdef ostlerd\n# Completion of ostlerd for zsh. {NOTE}\n\n"
            "local -a arguments=(\n" + "\n".join(lines) + "\n  '*:::command: _normal'\n)\n"
            "_arguments -S $arguments\n")


def fish(schema):
    lines = [f"# Completion of ostlerd for fish. {NOTE}", "",
             "complete -c ostlerd -f",
             "# After -- there is a command.",
             "complete -c ostlerd -n 'contains -- -- (commandline -opc)' -F"]
    for option in OWN + options(schema):
        short = "-s c " if option.name == "config" else ""
        line = f"complete -c ostlerd {short}-l {option.name}"
        if option.value:
            line += " -r" if option.files else " -x"
        if option.files == "file":
            line += " -F"
        actions = {"user": "(__fish_complete_users)", "group": "(__fish_complete_groups)",
                   "directory": "(__fish_complete_directories)"}
        words = actions.get(option.name) or " ".join(option.choices)
        if words:
            line += f" -a '{words}'"
        lines.append(line + " -d '" + option.help.replace("'", "\\'") + "'")
    return "\n".join(lines) + "\n"


# ---- Writing -------------------------------------------------------------------------------------

def between(path, begin, end, text):
    """The file with TEXT between the lines BEGIN and END."""
    old = path.read_text()
    head, found, rest = old.partition(begin + "\n")
    _, found_end, tail = rest.partition(end + "\n")
    if not found or not found_end:
        raise SystemExit(f"{path.relative_to(ROOT)}: lacks the lines '{begin}' and '{end}'")
    return head + begin + "\n" + text + end + "\n" + tail


def generated(schema):
    """What each file should hold."""
    man = ROOT / "packaging/man"
    completions = ROOT / "packaging/completions"
    page = ROOT / "docs/configuration.md"
    roff_marks = (f".\\\" {NOTE}", ".\\\" The end of what is made.")
    return {
        page: between(page, f"<!-- {NOTE} -->", "<!-- The end of what is made. -->",
                      "\n" + markdown(schema) + "\n"),
        man / "ostler.yaml.5": between(man / "ostler.yaml.5", *roff_marks, manual_keys(schema)),
        man / "ostlerd.8": between(man / "ostlerd.8", *roff_marks, manual_options(schema)),
        completions / "ostlerd.bash": bash(schema),
        completions / "ostlerd.zsh": zsh(schema),
        completions / "ostlerd.fish": fish(schema)}


def main(arguments):
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    stale = {path: text for path, text in generated(Schema(SCHEMA.read_text())).items()
             if not path.exists() or path.read_text() != text}
    for path, text in stale.items():
        print(f"{path.relative_to(ROOT)}: {'out of step with the schema' if arguments else 'made'}")
        if not arguments:
            path.write_text(text)
    return 1 if stale and arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
