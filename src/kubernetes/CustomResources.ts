/**
 * Velocity's kinds as CustomResourceDefinitions, made from the schemas that decode them: `k8s/crds/` is written from here
 * (`npm run generate`), and `velocity crd print` prints it. What a kind has beside its spec (short name, columns, status)
 * stands in the table below.
 */
import { stringify } from "yaml"
import type { CelRule } from "../domain/CelRule.ts"
import { type Kind, kinds, specs } from "../domain/Resource.ts"
import { structural } from "./StructuralSchema.ts"

/** A column of `kubectl get`. */
interface Column {
  readonly name: string
  readonly type: "string" | "integer" | "date"
  readonly jsonPath: string
  /** 1: with `-o wide` only. */
  readonly priority?: number
}

interface KindFacts {
  readonly plural: string
  readonly shortName: string
  readonly description: string
  readonly columns: ReadonlyArray<Column>
  /** What its status says beside the conditions. */
  readonly status: Readonly<Record<string, unknown>>
}

const text = (description: string) => ({ type: "string", description })
const flag = (description: string) => ({ type: "boolean", description })
const count = (description: string) => ({ type: "integer", format: "int64", description })
const spec = (name: string, key: string): Column => ({ name, type: "string", jsonPath: `.spec.${key}` })
/** A condition's status, under its name. */
const condition = (name: string, priority?: number): Column => ({
  name,
  type: "string",
  jsonPath: `.status.conditions[?(@.type=="${name}")].status`,
  ...(priority === undefined ? {} : { priority })
})

/** A plan that waits or is carried out (fine print 20). */
const plan = {
  type: "object",
  description: "What becomes of its table, where that waits for an approval or is being done",
  properties: {
    hash: text("What velocity.sh/approve-plan must be for it to be carried out"),
    state: text("Waiting, for an approval, or Running"),
    step: count("The number of the step that it is at, from 1"),
    steps: {
      type: "array",
      description: "Its steps in their order",
      maxItems: 100,
      "x-kubernetes-list-type": "atomic",
      items: {
        type: "object",
        properties: {
          phase: text("expand, backfill, build, switch or validate"),
          does: text("In a few words"),
          sql: text("The statements"),
          lock: text("The strongest lock on the table, or none"),
          rewrites: flag("Whether the table is rewritten under it"),
          losesData: flag("Whether it can lose data"),
          needsApproval: flag("Whether it can lose data or break clients, so that the plan waits"),
          estimate: count("Rows that it reads or writes, about"),
          why: text("What whoever approves should know")
        }
      }
    },
    truncated: flag("Whether steps or statements are left out: velocity schema plan shows them all")
  }
}

const facts: Readonly<Record<Kind, KindFacts>> = {
  Organisation: {
    plural: "organisations",
    shortName: "vorg",
    description: "An organisation: what its applications and domains inherit. Lives in Velocity's own namespace.",
    columns: [spec("Org", "org"), spec("Name", "displayName")],
    status: {}
  },
  Application: {
    plural: "applications",
    shortName: "vapp",
    description: "An application of an organisation: who owns it, and what its domains inherit.",
    columns: [spec("Org", "org"), spec("App", "app"), spec("Owner", "owner")],
    status: {}
  },
  Domain: {
    plural: "domains",
    shortName: "vdom",
    description: "A domain: one Postgres schema with its roles, one audit chain.",
    columns: [
      { name: "Schema", type: "string", jsonPath: ".status.pgSchema" },
      { name: "Strategy", type: "string", jsonPath: ".status.authStrategy", priority: 1 }
    ],
    status: {
      pgSchema: text("The Postgres schema that holds its tables"),
      pgRoles: {
        type: "array",
        maxItems: 8,
        "x-kubernetes-list-type": "set",
        description: "The Postgres roles that a request of this domain enters",
        items: { type: "string" }
      },
      authStrategy: text("The strategy in force, its own or inherited")
    }
  },
  SchemaDefinition: {
    plural: "schemadefinitions",
    shortName: "vsd",
    description: "A record type: a table with row-level security, a REST API, validation, access, history and audit.",
    columns: [
      { name: "Path", type: "string", jsonPath: ".status.path" },
      { name: "Stage", type: "string", jsonPath: ".spec.lifecycle.stage" },
      { name: "Phase", type: "string", jsonPath: ".status.phase", priority: 1 },
      { name: "Table", type: "string", jsonPath: ".status.pgTable", priority: 1 },
      { name: "Records", type: "integer", jsonPath: ".status.records", priority: 1 },
      condition("Serving", 1),
      { name: "Successor", type: "string", jsonPath: ".spec.lifecycle.successor", priority: 1 },
      { name: "Sunset", type: "string", jsonPath: ".spec.lifecycle.sunsetAt", priority: 1 }
    ],
    status: {
      path: text("org/app/domain/object/version: where its records are served, below /api/"),
      phase: {
        type: "string",
        description:
          "In one word: Pending (something else must come first), AwaitingApproval, Evolving, Provisioned, Withdrawing or Stalled"
      },
      pgTable: text("The table that holds its records"),
      records: count("About how many records it has, to one significant digit; looked at once an hour"),
      plan
    }
  },
  AuthStrategy: {
    plural: "authstrategies",
    shortName: "vauth",
    description: "How callers prove who they are, and which claims say what they may.",
    columns: [spec("Type", "type"), { name: "Id", type: "string", jsonPath: ".status.id", priority: 1 }],
    status: { id: text("What begins the name of every actor of this strategy") }
  },
  RoleBinding: {
    plural: "rolebindings",
    shortName: "vrb",
    description: "Roles for one actor in one domain, or, in Velocity's own namespace, on the platform.",
    columns: [spec("Actor", "actorId"), spec("Roles", "roles"), spec("Expires", "expiresAt")],
    status: {}
  },
  ApiKey: {
    plural: "apikeys",
    shortName: "vkey",
    description: "A key for a machine, minted once into a Secret: for one domain, or for the platform.",
    columns: [
      spec("Actor", "actor"),
      { name: "Secret", type: "string", jsonPath: ".status.secretName" },
      spec("Expires", "expiresAt"),
      { name: "Fingerprint", type: "string", jsonPath: ".status.fingerprint", priority: 1 }
    ],
    status: {
      keyId: text("The id of the key in force, which the audit log names"),
      fingerprint: text("The first 16 digits of the key's SHA-256, to compare keys by"),
      secretName: text("The Secret that holds the key in force, under `key`; without a cluster the file"),
      retiring: {
        type: "array",
        maxItems: 16,
        "x-kubernetes-list-type": "atomic",
        description: "Keys of before that still work, after a rotation: fingerprint and when each ends",
        items: { type: "string" }
      }
    }
  }
}

const conditions = {
  type: "array",
  description: "What is known of it, as kstatus reads it",
  maxItems: 16,
  "x-kubernetes-list-type": "map",
  "x-kubernetes-list-map-keys": ["type"],
  items: {
    type: "object",
    required: ["type", "status", "reason", "message", "lastTransitionTime"],
    properties: {
      type: { type: "string", maxLength: 316 },
      status: { type: "string", enum: ["True", "False", "Unknown"] },
      reason: { type: "string", maxLength: 1024 },
      message: { type: "string", maxLength: 32_768 },
      observedGeneration: { type: "integer", format: "int64" },
      lastTransitionTime: { type: "string", format: "date-time" }
    }
  }
}

const nameRule: CelRule = {
  rule: "size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')",
  message: "metadata.name must be a DNS label"
}

/** The group of every kind. */
export const group = "velocity.sh"

/** The plural of a kind, as it stands in paths. */
export const pluralOf = (kind: Kind): string => facts[kind].plural

/** What the status of a kind may say beside observedGeneration and the conditions. */
export const statusKeysOf = (kind: Kind): ReadonlyArray<string> => Object.keys(facts[kind].status)

/** The definition of one kind, ready to be applied. Throws `NotStructural` where its schema has no structural form. */
export const customResourceDefinition = (kind: Kind): Readonly<Record<string, unknown>> => {
  const { columns, description, plural, shortName, status } = facts[kind]
  const singular = kind.toLowerCase()
  return {
    apiVersion: "apiextensions.k8s.io/v1",
    kind: "CustomResourceDefinition",
    metadata: { name: `${plural}.${group}`, labels: { "app.kubernetes.io/part-of": "velocity" } },
    spec: {
      group,
      scope: "Namespaced",
      names: { plural, singular, kind, listKind: `${kind}List`, shortNames: [shortName], categories: ["velocity"] },
      versions: [
        {
          name: "v1",
          served: true,
          storage: true,
          subresources: { status: {} },
          additionalPrinterColumns: [
            ...columns,
            condition("Ready"),
            { name: "Reason", type: "string", jsonPath: '.status.conditions[?(@.type=="Ready")].reason' },
            { name: "Age", type: "date", jsonPath: ".metadata.creationTimestamp" }
          ],
          schema: {
            openAPIV3Schema: {
              type: "object",
              description,
              required: ["spec"],
              "x-kubernetes-validations": [nameRule],
              properties: {
                apiVersion: { type: "string" },
                kind: { type: "string" },
                metadata: { type: "object" },
                spec: structural(specs[kind], "spec"),
                status: {
                  type: "object",
                  description: "Written by the operator",
                  properties: {
                    observedGeneration: {
                      type: "integer",
                      format: "int64",
                      description: "The generation of the spec that the status speaks of"
                    },
                    ...status,
                    conditions
                  }
                }
              }
            }
          }
        }
      ]
    }
  }
}

const header = "# Generated from src/domain/ by npm run generate: change the schemas there, not this file.\n"

/** The files of `k8s/crds/` by name. */
export const customResourceFiles = (): ReadonlyMap<string, string> =>
  new Map(
    kinds.map((kind) => [
      `${pluralOf(kind)}.yaml`,
      // without anchors, which people edit in one place and mean in another
      header + stringify(customResourceDefinition(kind), { aliasDuplicateObjects: false, lineWidth: 120 })
    ])
  )

/** The same for kustomize. Its name has no ending, so that `kubectl apply -f k8s/crds` takes the kinds alone. */
export const customResourceKustomization = (): readonly [name: string, text: string] => [
  "Kustomization",
  header +
    stringify({
      apiVersion: "kustomize.config.k8s.io/v1beta1",
      kind: "Kustomization",
      resources: [...customResourceFiles().keys()].sort()
    })
]
