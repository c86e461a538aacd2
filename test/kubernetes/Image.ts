/**
 * The image without Docker: the Dockerfile's lines carried out in a folder. FROM begins an empty one, COPY copies as Docker
 * does, RUN runs here under this run's Node; what the base image has besides is not looked at.
 */
import { spawnSync } from "node:child_process"
import { chmod, cp, mkdir, mkdtemp, readFile, rm, stat } from "node:fs/promises"
import { tmpdir } from "node:os"
import { basename, dirname, join, resolve } from "node:path"
import { root } from "./Manifests.ts"

export interface Image {
  /** What the image has, as `/`. */
  readonly folder: string
  readonly workdir: string
  readonly user: string
  readonly entrypoint: ReadonlyArray<string>
  readonly env: Readonly<Record<string, string>>
  /** What was taken from the repository. */
  readonly sources: ReadonlyArray<string>
  readonly remove: () => Promise<void>
}

interface Stage {
  readonly folder: string
  workdir: string
  user: string
  entrypoint: ReadonlyArray<string>
  readonly env: Record<string, string>
}

const isFolder = async (path: string): Promise<boolean> => (await stat(path)).isDirectory()

export const layImage = async (): Promise<Image> => {
  const folder = await mkdtemp(join(tmpdir(), `velocity-test-${process.pid}-image-`))
  // another user is to enter it
  await chmod(folder, 0o755)
  const stages = new Map<string, Stage>()
  const sources: Array<string> = []
  let stage: Stage | undefined
  const inStage = (): Stage => {
    if (stage === undefined) throw new Error("the Dockerfile begins without FROM")
    return stage
  }
  const pathOf = (to: Stage, path: string): string => join(to.folder, resolve(to.workdir, path))

  const copy = async (words: ReadonlyArray<string>) => {
    const to = inStage()
    const from = words[0]?.startsWith("--from=") === true ? words[0].slice("--from=".length) : undefined
    const paths = from === undefined ? words : words.slice(1)
    const target = paths.at(-1) ?? ""
    const other = from === undefined ? undefined : stages.get(from)
    if (from !== undefined && other === undefined) throw new Error(`there is no stage ${from}`)
    if (paths.length > 2 && !target.endsWith("/")) throw new Error(`COPY of several to ${target}, which is no folder`)
    for (const source of paths.slice(0, -1)) {
      if (other === undefined) sources.push(source)
      const path = other === undefined ? join(root, source) : join(other.folder, resolve("/", source))
      // of a folder its contents; a file under its own name where the target is a folder
      const into = (await isFolder(path)) || !target.endsWith("/") ? target : join(target, basename(source))
      await mkdir(dirname(pathOf(to, into)), { recursive: true })
      await cp(path, pathOf(to, into), { recursive: true, verbatimSymlinks: true })
    }
  }

  const execute = (command: string) => {
    const to = inStage()
    const { status, stderr, stdout } = spawnSync("sh", ["-c", command], {
      cwd: pathOf(to, "."),
      encoding: "utf8",
      env: {
        ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("npm_"))),
        PATH: `${dirname(process.execPath)}:${process.env.PATH}`,
        npm_config_prefer_offline: "true"
      }
    })
    if (status !== 0) throw new Error(`RUN ${command}: ${stdout}${stderr}`)
  }

  const text = await readFile(join(root, "Dockerfile"), "utf8")
  for (const line of text.replaceAll("\\\n", " ").split("\n")) {
    if (line.trim() === "" || line.startsWith("#")) continue
    const [, instruction = "", rest = ""] = /^(\w+)\s+(.*)$/u.exec(line) ?? []
    switch (instruction) {
      case "FROM": {
        const [, name = "image"] = / AS (\w+)$/u.exec(rest) ?? []
        stage = { folder: join(folder, name), workdir: "/", user: "root", entrypoint: [], env: {} }
        stages.set(name, stage)
        await mkdir(stage.folder)
        break
      }
      case "WORKDIR":
        inStage().workdir = resolve(inStage().workdir, rest)
        await mkdir(pathOf(inStage(), "."), { recursive: true })
        break
      case "COPY":
        await copy(rest.split(/\s+/u))
        break
      case "RUN":
        execute(rest)
        break
      case "ENV": {
        const [name = "", ...value] = rest.split("=")
        inStage().env[name] = value.join("=")
        break
      }
      case "USER":
        inStage().user = rest
        break
      case "ENTRYPOINT":
        inStage().entrypoint = JSON.parse(rest) as ReadonlyArray<string>
        break
      default:
        throw new Error(`this knows no ${instruction}`)
    }
  }
  const image = inStage()
  // nobody writes in it, as on a read-only root
  spawnSync("chmod", ["-R", "a-w,a+rX", image.folder])
  return {
    ...image,
    sources,
    remove: async () => {
      spawnSync("chmod", ["-R", "u+w", folder])
      await rm(folder, { recursive: true, force: true })
    }
  }
}
