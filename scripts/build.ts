/** Compiles src/ into dist/, as the package is published: Node refuses TypeScript below node_modules. */
import { spawnSync } from "node:child_process"
import { rmSync } from "node:fs"
import { join, resolve } from "node:path"

const root = resolve(import.meta.dirname, "..")
rmSync(join(root, "dist"), { recursive: true, force: true })
const compiler = join(root, "node_modules", "typescript", "bin", "tsc")
const done = spawnSync(process.execPath, [compiler, "-p", join(root, "tsconfig.build.json")], { stdio: "inherit" })
process.exit(done.status ?? 1)
