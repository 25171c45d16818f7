// Validates CycloneDX documents by the JSON schema of 1.6, strictly.
//
// Usage: schema.mjs valid|broken FILE...     says what is wrong; fails where a document is not as announced

import { readFileSync } from 'node:fs'
import { Spec, Validation } from '@cyclonedx/cyclonedx-library'

const [announced, ...files] = process.argv.slice(2)
const validator = new Validation.JsonStrictValidator(Spec.Version.v1dot6)
let wrong = 0
for (const file of files) {
  const problem = await validator.validate(readFileSync(file, 'utf8'))
  const said = problem === null ? 'valid' : 'broken'
  if (said !== announced) {
    console.error(`${file}: is ${said}, not ${announced}: ${JSON.stringify(problem)?.slice(0, 500)}`)
    wrong += 1
  }
}
console.log(`schema: ${files.length} documents, all ${announced} but ${wrong}`)
process.exit(wrong === 0 && files.length > 0 ? 0 : 1)
