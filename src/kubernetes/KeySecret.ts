/**
 * A minted key as a Secret: created once, never over one that is there, and never read. It goes with its ApiKey, to which
 * its ownerReference leads.
 */
import { Effect } from "effect"
import { group } from "./CustomResources.ts"
import { Kube } from "./Kube.ts"

/** Creates it; fails with `Conflict` where the name is taken. */
export const createKeySecret = Effect.fnUntraced(function* (
  owner: { readonly namespace: string; readonly name: string; readonly uid: string },
  minted: { readonly id: string; readonly key: string; readonly secretName: string }
) {
  const kube = yield* Kube
  yield* kube.request({
    method: "POST",
    path: `/api/v1/namespaces/${owner.namespace}/secrets`,
    query: { fieldManager: "velocity-operator" },
    body: {
      apiVersion: "v1",
      kind: "Secret",
      type: "Opaque",
      immutable: true,
      metadata: {
        name: minted.secretName,
        namespace: owner.namespace,
        labels: { "app.kubernetes.io/part-of": "velocity" },
        annotations: { "velocity.sh/key-id": minted.id },
        ownerReferences: [{ apiVersion: `${group}/v1`, kind: "ApiKey", name: owner.name, uid: owner.uid }]
      },
      stringData: { key: minted.key }
    }
  })
})
