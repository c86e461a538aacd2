/**
 * The contract: one value from which the server's routes, the typed client and the OpenAPI document are made.
 */
import { HttpApi, OpenApi } from "effect/http-api"
import { anomalies } from "./Anomalies.ts"
import { health } from "./Health.ts"
import { meGroup } from "./Me.ts"
import { tidied } from "./OpenApiNotes.ts"
import { planning } from "./Planning.ts"
import { platform } from "./Platform.ts"
import { privacy } from "./Privacy.ts"
import { records } from "./Records.ts"

/** See the module. */
export const VelocityApi = HttpApi.make("velocity")
  .add(records, privacy, meGroup, platform, planning, anomalies, health)
  .annotate(HttpApi.ParseOptions, { errors: "all", onExcessProperty: "error" })
  .annotate(HttpApi.HeadersParseOptions, { errors: "all", onExcessProperty: "ignore" })
  .annotate(HttpApi.SuccessParseOptions, { onExcessProperty: "ignore" })
  .annotate(HttpApi.ErrorParseOptions, { onExcessProperty: "ignore" })
  .annotateMerge(
    OpenApi.annotations({
      title: "Velocity",
      version: "v1",
      description:
        "Records of the record types that were applied, each under /api/{org}/{app}/{domain}/{object}/{version}. Every refusal is an RFC 9457 problem with a stable code. Numbers are exact: read them from the text, not as floats.",
      transform: tidied,
      license: { name: "Apache-2.0", url: "https://www.apache.org/licenses/LICENSE-2.0" }
    })
  )
