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
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // two cores: more workers than that only wait for each other
    maxWorkers: 2
  }
})
