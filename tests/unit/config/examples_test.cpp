// The configuration that is installed, and the examples, are without fault: with their programs
// stood for by empty executables, and their folders by the scratch folder.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <regex>
#include <sstream>

#include "config/src/yaml_reader.hpp"
#include "schema_check.hpp"
#include "stable.hpp"

namespace ostler::config {
namespace {

const std::string kFolder = OSTLER_CONFIG_FOLDER;

Lines example_files() {
  Lines files;
  for (const auto& entry : std::filesystem::directory_iterator(kFolder + "/examples")) {
    files.push_back(entry.path().string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

nlohmann::json as_json(const std::string& text) {
  Faults faults;
  const auto source = std::make_shared<const Source>(Source{"f", "/", {}, {}});
  const NodePtr root = read_yaml(text, source, faults);
  REQUIRE(texts(faults.sorted()) == Lines{});
  return to_json(*root);
}

// A machine on which all the programs of the examples are installed.
struct Machine : Stable {
  Machine() {
    for (const char* program : {"my-server", "uvicorn", "gunicorn", "node", "php-cgi",
                                "ostler-example-http", "ostler-example-notes"}) {
      scratch.write("bin/" + std::string(program), "#!/bin/sh\n", 0755);
    }
  }

  [[nodiscard]] Loaded load_example(const std::string& text) const {
    LoadOptions options;
    options.runtime_folder = "/run/ostler";
    const nlohmann::json document = as_json(text);
    for (const auto& [name, pool] : document.at("pools").items()) {
      if (pool.contains("directory")) {
        options.overrides.push_back({"pools." + name + ".directory", scratch.path()});
      }
    }
    return load(text, options);
  }
};

// The settings that stand as comments, made into settings.
std::string uncommented(const std::string& text) {
  std::istringstream lines(text);
  std::string out;
  for (std::string line; std::getline(lines, line);) {
    const bool setting = line.size() > 1 && line[0] == '#' && (line[1] != ' ' || line[2] == ' ');
    out += (setting ? line.substr(1) : line) + "\n";
  }
  return std::regex_replace(out, std::regex("\npools: \\{\\}\n"), "\npools:\n");
}

}  // namespace

TEST_CASE("every example loads, fits the schema and prints as it reads") {
  const Machine machine;
  const nlohmann::json schema =
      nlohmann::json::parse(read_text(kFolder + "/schema/ostler.schema.json"));
  CHECK(example_files().size() == 8);
  for (const std::string& file : example_files()) {
    CAPTURE(file);
    const std::string text = read_text(file);
    CHECK(SchemaCheck(schema).accepts(as_json(text)));
    const Loaded loaded = machine.load_example(text);
    CHECK(texts(loaded.faults) == Lines{});
    CHECK(loaded.config.pools.size() == 1);
    LoadOptions options;
    options.runtime_folder = "/run/ostler";
    const Loaded again = machine.load(print(loaded.config), options);
    CHECK(again.config == loaded.config);
    CHECK(again.ok());
  }
}

TEST_CASE("gunicorn finds at once in its example that an application cannot be loaded") {
  const Machine machine;
  const Loaded loaded = machine.load_example(read_text(kFolder + "/examples/gunicorn.yaml"));
  const Lines& command = loaded.config.pools.at("web").command;
  CHECK(std::find(command.begin(), command.end(), "--preload") != command.end());
}

TEST_CASE("the configuration that is installed") {
  const Machine machine;
  const std::string text = read_text(kFolder + "/ostler.yaml");
  const Loaded loaded = machine.load(text);
  CHECK(texts(loaded.faults) == Lines{});
  CHECK(loaded.config.pools.empty());
  CHECK(loaded.warnings.empty());
  const nlohmann::json schema =
      nlohmann::json::parse(read_text(kFolder + "/schema/ostler.schema.json"));
  CHECK(SchemaCheck(schema).accepts(as_json(text)));

  // With all its comments made settings it is right as well, and says nothing but the defaults.
  const std::string all = uncommented(text);
  CAPTURE(all);
  CHECK(SchemaCheck(schema).accepts(as_json(all)));
  LoadOptions options;
  options.overrides = {{"control.socket", machine.scratch / "control.sock"},
                       {"pools.web.directory", machine.scratch.path()},
                       {"pools.web.user", "root"}};
  const Loaded full = machine.load(all, options);
  REQUIRE(texts(full.faults) == Lines{});
  const Pool& web = full.config.pools.at("web");
  CHECK(full.config.log == Log{});
  CHECK(web.timeouts == Timeouts{});
  CHECK(web.replace == Replace{});
  CHECK(web.restart == Restart{});
  CHECK(web.listen.size() == 1);
}

}  // namespace ostler::config
