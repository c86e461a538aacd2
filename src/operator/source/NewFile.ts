/** A file that is new: whole and on the disk, or not there at all, and never over one that is there. */
import { constants } from "node:fs"
import { link, open, rm } from "node:fs/promises"

/** Fails with EEXIST where there is one. `mode` as chmod has it: 0o600 for what is secret. */
export const writeNew = async (file: string, text: string, mode: number): Promise<void> => {
  const draft = `${file}.${crypto.randomUUID()}`
  try {
    const handle = await open(draft, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, mode)
    try {
      await handle.writeFile(text)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await link(draft, file)
  } finally {
    await rm(draft, { force: true })
  }
}
