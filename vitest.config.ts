import { defineConfig } from "vitest/config"

const cluster = (process.env.KUBEBUILDER_ASSETS ?? "") !== ""
const missing =
  "the cluster tests do not run without a kube-apiserver: export KUBEBUILDER_ASSETS=$(npm run --silent envtest)"
if (!cluster && process.env.CI === "true") throw new Error(missing)
if (!cluster) console.warn(missing)

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    exclude: ["test/bench/**", ...(cluster ? [] : ["test/kubernetes/**"])],
    globalSetup: ["test/support/GlobalSetup.ts"],
    // a machine that does much else may take its time: no test is about time
    testTimeout: 300_000,
    hookTimeout: 300_000,
    // two cores: more workers than that only wait for each other
    maxWorkers: 2,
    // what comes by itself is waited for
    expect: { poll: { timeout: 60_000 } }
  }
})
