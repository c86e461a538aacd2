/** How commands speak to the database as `velocity_operator`. */
import { Config, ConfigProvider, Effect, Layer, type Redacted, Redacted as Secret } from "effect"
import { Flag } from "effect/cli"
import { OperatorSql } from "../postgres/OperatorSql.ts"
import { failed } from "./Settings.ts"

/** `--database-url`, else `VELOCITY_OPERATOR_DATABASE_URL`. */
export const operatorUrlFlag = Flag.Redacted("database-url").pipe(
  Flag.withDescription("How velocity_operator reaches the database"),
  Flag.withFallbackConfig(Config.Redacted("VELOCITY_OPERATOR_DATABASE_URL"))
)

/** Runs as the operator's login. */
export const withDatabase = <A, E>(url: Redacted.Redacted, effect: Effect.Effect<A, E, OperatorSql>) =>
  effect.pipe(
    Effect.provide(
      OperatorSql.layer.pipe(
        Layer.provide(
          ConfigProvider.layer(
            ConfigProvider.fromUnknown({ ...process.env, VELOCITY_OPERATOR_DATABASE_URL: Secret.value(url) })
          )
        )
      )
    )
  )

/** The database did not answer: exit code 2. */
export const unreachable = (error: { readonly message: string }) =>
  failed(`the database could not be asked: ${error.message}`, 2)
