/**
 * What an object says itself under a name. A name that comes from people, such as a field's, may be one that every object
 * inherits: `constructor`.
 */
export const own = <V>(object: Readonly<Record<string, V>>, name: string): V | undefined =>
  Object.hasOwn(object, name) ? object[name] : undefined
