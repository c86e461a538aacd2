/**
 * What a definition can be told to be wrong by itself, in CEL: the part of `Admission` that an API server can judge. It
 * sees no labels and no key of free form (`default`, a filter's `value`), so the rest stays the operator's.
 *
 * A rule costs what its lists may hold, and may cost a million at run time (fine print 19): each walks one list within one
 * other, by `all` and `exists` and never by `filter`, which loses the bounds.
 */
import { type CelRule, immutable } from "./CelRule.ts"
import { domainRules } from "./PathRules.ts"

/** Of one field. */
export const fieldRules = (systemColumns: ReadonlyArray<string>): ReadonlyArray<CelRule> => [
  {
    rule: `!(self.name in [${systemColumns.map((name) => `'${name}'`).join(", ")}])`,
    message: "this name is a system column",
    fieldPath: ".name"
  },
  {
    rule: "has(self.enum) == (self.type == 'enum')",
    message: "enum needs values, and only enum may have them",
    fieldPath: ".enum"
  },
  {
    rule: "has(self.ref) == (self.type == 'ref')",
    message: "ref needs a target, and only ref may have one",
    fieldPath: ".ref"
  },
  {
    rule: "!has(self.ref) || self.ref.onDelete != 'setNull' || !self.required",
    message: "setNull cannot empty a required field",
    fieldPath: ".ref"
  },
  {
    rule: "!(has(self.minLength) || has(self.maxLength)) || self.type in ['string', 'bytes']",
    message: "minLength and maxLength are for string and bytes",
    fieldPath: ".maxLength"
  },
  {
    rule: "!has(self.minLength) || !has(self.maxLength) || self.minLength <= self.maxLength",
    message: "minLength is above maxLength",
    fieldPath: ".minLength"
  },
  {
    rule: "!has(self.pattern) || self.type == 'string'",
    message: "pattern is for string",
    fieldPath: ".pattern"
  },
  {
    rule: "!(has(self.precision) || has(self.scale)) || self.type == 'number' && !(has(self.float) && self.float)",
    message: "precision and scale are for exact numbers",
    fieldPath: ".precision"
  },
  {
    rule: "!has(self.scale) || has(self.precision) && self.scale <= self.precision",
    message: "scale needs a precision at least as large",
    fieldPath: ".scale"
  },
  {
    rule: "!has(self.float) || self.type == 'number'",
    message: "float is for number",
    fieldPath: ".float"
  },
  {
    rule: "!(has(self.min) || has(self.max)) || self.type in ['integer', 'number']",
    message: "min and max are for integer and number",
    fieldPath: ".min"
  },
  {
    // a double errs by rounding both ways alike, so it never refuses what is in order
    rule: "!has(self.min) || !has(self.max) || double(string(self.min)) <= double(string(self.max))",
    message: "min is above max",
    fieldPath: ".min"
  },
  {
    rule: "self.type != 'json' || !(self.unique || self.indexed)",
    message: "json cannot be unique or indexed",
    fieldPath: ".indexed"
  },
  {
    rule: "self.type != 'bytes' || !self.indexed",
    message: "bytes cannot be indexed",
    fieldPath: ".indexed"
  },
  {
    rule: "self.type != 'bytes' || !self.unique || has(self.maxLength) && self.maxLength <= 2000",
    message: "unique bytes need a maxLength of at most 2000: an index holds no more",
    fieldPath: ".unique"
  },
  {
    rule: "!has(self.mask) || self.mask.strategy != 'partial' || self.type == 'string'",
    message: "partial is for string",
    fieldPath: ".mask"
  }
]

/** Of a row filter's condition, as far as it does not depend on the field's type. */
export const conditionRules: ReadonlyArray<CelRule> = [
  {
    rule: "!has(self.values) || self.op == 'in'",
    message: "values are for the operator in",
    fieldPath: ".values"
  },
  {
    rule: "self.op != 'is_null' || !has(self.identity)",
    message: "is_null takes value true or false",
    fieldPath: ".identity"
  },
  {
    rule: "self.op != 'in' || has(self.values) || has(self.identity)",
    message: "in takes values, or an identity that is a list",
    fieldPath: ".op"
  }
]

const declared = "self.access.roles.exists(x, x.role == r)"
const filters = "!has(self.access.rowFilters) || self.access.rowFilters"

/** Of a definition's spec. */
export const definitionRules: ReadonlyArray<CelRule> = [
  ...["org", "app", "domain", "object", "version"].map((key) => immutable(key)),
  ...domainRules,
  {
    rule: "!has(self.sharesRowsWith) || self.sharesRowsWith != self.version",
    message: "a version cannot share its own rows",
    fieldPath: ".sharesRowsWith"
  },
  {
    rule: "self.access.roles.all(r, !r.role.startsWith('platform-'))",
    message: "roles that begin with platform- are Velocity's own",
    fieldPath: ".access.roles"
  },
  {
    rule: `self.fields.all(f, !has(f.access) || !has(f.access.read) || f.access.read.all(r, ${declared}))`,
    message: "access.read of a field names a role that is not in access.roles",
    fieldPath: ".fields"
  },
  {
    rule: `self.fields.all(f, !has(f.access) || !has(f.access.write) || f.access.write.all(r, ${declared}))`,
    message: "access.write of a field names a role that is not in access.roles",
    fieldPath: ".fields"
  },
  {
    rule: `self.fields.all(f, !has(f.mask) || !has(f.mask.unmaskedFor) || f.mask.unmaskedFor.all(r, ${declared}))`,
    message: "mask.unmaskedFor of a field names a role that is not in access.roles",
    fieldPath: ".fields"
  },
  {
    rule: `${filters}.all(one, self.access.roles.exists(x, x.role == one.role))`,
    message: "a row filter names a role that is not in access.roles",
    fieldPath: ".access.rowFilters"
  },
  {
    rule: `${filters}.all(one, self.fields.exists(x, x.name == one.filter.field))`,
    message: "a row filter names a field that does not exist",
    fieldPath: ".access.rowFilters"
  },
  {
    rule: `${filters}.all(one, !self.fields.exists(x, x.name == one.filter.field && (x.type in ['json', 'bytes'] || one.filter.op == 'contains' && x.type != 'string' || one.filter.op in ['lt', 'lte', 'gt', 'gte'] && x.type in ['boolean', 'enum', 'ref'])))`,
    message:
      "a row filter does not fit its field: none is on json or bytes, contains is for string, and boolean, enum and ref have no order",
    fieldPath: ".access.rowFilters"
  },
  {
    rule: "!has(self.uniqueConstraints) || self.uniqueConstraints.all(u, u.fields.all(f, self.fields.exists(x, x.name == f)))",
    message: "a unique constraint names a field that does not exist",
    fieldPath: ".uniqueConstraints"
  },
  {
    rule: "!has(self.uniqueConstraints) || self.uniqueConstraints.all(u, u.fields.all(f, !self.fields.exists(x, x.name == f && x.type in ['json', 'bytes'])))",
    message: "json and bytes cannot be part of a unique constraint",
    fieldPath: ".uniqueConstraints"
  },
  {
    rule: "!has(self.search) || self.search.fields.all(f, self.fields.exists(x, x.name == f))",
    message: "search names a field that does not exist",
    fieldPath: ".search"
  },
  {
    rule: "!has(self.search) || self.search.fields.all(f, !self.fields.exists(x, x.name == f && !(x.type in ['string', 'enum'])))",
    message: "search is over string fields",
    fieldPath: ".search"
  },
  {
    rule: "!has(self.lifecycle) || !has(self.lifecycle.successor) || self.lifecycle.successor != self.version",
    message: "a version does not succeed itself",
    fieldPath: ".lifecycle"
  }
]
