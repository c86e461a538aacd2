import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    exclude: ["test/bench/**"],
    globalSetup: ["test/support/GlobalSetup.ts"],
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // two cores: more workers than that only wait for each other
    maxWorkers: 2
  }
})
