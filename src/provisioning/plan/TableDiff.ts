/**
 * From a table as the catalogue has it to the table that is wanted: the steps, or why not. Pure.
 *
 * Fields that have a new name are compared under their former one (`wanted`); they are renamed at the end of the switch, and
 * what comes after it knows them by the new name (`named`). A rename is a change of the catalogue in the transaction in
 * which the new definition is served: a replica that still has the old one is refused by `platform.enter`, or meets a column
 * that is not there, and repeats its request, so nothing is ever written under the old name and no copy is needed.
 */
import type { Fault } from "../../domain/Fault.ts"
import { accessSteps } from "./AccessSteps.ts"
import { columnSteps } from "./ColumnSteps.ts"
import type { Comparison } from "./Comparison.ts"
import { constraintComments, constraintSteps } from "./ConstraintSteps.ts"
import { draftOf, stepsOf } from "./Draft.ts"
import { faceSteps } from "./FaceSteps.ts"
import type { Facts } from "./Facts.ts"
import { indexSteps } from "./IndexSteps.ts"
import type { Step } from "./Plan.ts"
import { premiseOfNone } from "./Premise.ts"
import { renameSteps } from "./RenameSteps.ts"

export interface Diff {
  readonly steps: ReadonlyArray<Step>
  /** Why it cannot be done: the rows contradict it, or it is no change that is made. */
  readonly faults: ReadonlyArray<Fault>
  /** What stays different. */
  readonly notes: ReadonlyArray<string>
}

/** See the module. What comes later looks at what came before it: access last. */
export const diff = (comparison: Comparison, facts: Facts): Diff => {
  const draft = draftOf(comparison, facts)
  columnSteps(draft)
  constraintSteps(draft)
  indexSteps(draft)
  constraintComments(draft)
  renameSteps(draft)
  faceSteps(draft)
  accessSteps(draft)
  premiseOfNone(draft)
  return { steps: stepsOf(draft), faults: draft.faults, notes: draft.notes }
}
