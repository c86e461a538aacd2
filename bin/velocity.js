#!/usr/bin/env node
/*
 * The `velocity` command. Plain ES5 and CommonJS on purpose: an old system Node must get far enough to find
 * Node 24 (which comes with the package, one optional dependency a platform) or to say in one line what is missing.
 */
"use strict"

var fs = require("fs")
var path = require("path")
var start = require("./start.js")

var root = path.resolve(__dirname, "..")
var compiled = path.join(root, "dist", "src", "main.js")
var source = path.join(root, "src", "main.ts")
// A checkout runs its sources as they are; Node refuses .ts below node_modules, so a package as published is compiled.
var main = fs.existsSync(source) ? source : compiled

start.run(main, process.argv.slice(2))
