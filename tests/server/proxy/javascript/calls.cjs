// Makes the streamed calls that come as JSON on the standard input, and prints what the SDKs give.
// The argument is the folder with the packages.
const { createHash } = require("node:crypto");
const { readFileSync } = require("node:fs");
const { createRequire } = require("node:module");
const { join } = require("node:path");

const load = createRequire(join(process.argv[2], "package.json"));
const Anthropic = load("@anthropic-ai/sdk").default;
const OpenAI = load("openai").default;
const KEY = "sk-canary-0123456789abcdefghijklmnop";

function begin({ kind, base_url, body, headers }) {
  const options = { apiKey: KEY, baseURL: base_url, maxRetries: 0 };
  if (kind === "messages") return new Anthropic(options).messages.create(body, { headers });
  const client = new OpenAI(options);
  return kind === "responses"
    ? client.responses.create(body, { headers })
    : client.chat.completions.create(body, { headers });
}

function textOf(event) {
  if (event.type === "content_block_delta") return event.delta.text ?? "";
  if (event.type === "response.output_text.delta") return event.delta;
  return event.choices?.[0]?.delta?.content ?? "";
}

async function result(call) {
  const hash = createHash("sha256");
  const found = { events: 0, text: "", error: null };
  try {
    for await (const event of await begin(call)) {
      found.events += 1;
      found.text += textOf(event);
      hash.update(JSON.stringify(event));
    }
  } catch (error) {
    found.error = `${error.constructor.name}: ${error.message}`;
  }
  return { ...found, sha256: hash.digest("hex") };
}

(async () => {
  const results = [];
  for (const call of JSON.parse(readFileSync(0, "utf8"))) results.push(await result(call));
  process.stdout.write(JSON.stringify(results));
})();
