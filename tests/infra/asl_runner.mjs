// Runs a JSONata state machine whose tasks answer as a script says; refuses what it does not know.
//
// Reads {machine, input, script} and writes {status, output | error, calls, waits} as JSON. The
// script has, for each Task, its answers in turn: {payload} or {error, cause}; the last one stays.
// A call has the function and its payload, or the arguments of another service's.
// Retries are not made: they are the service's own, and change nothing of the way taken.
import { readFileSync } from "node:fs";
import jsonata from "jsonata";

const KNOWN = {
  Task: ["Resource", "Arguments", "TimeoutSeconds", "Retry", "Catch", "Assign", "Output"],
  Pass: ["Assign", "Output"],
  Choice: ["Choices", "Default"],
  Wait: ["Seconds"],
  Map: ["Items", "MaxConcurrency", "ItemProcessor"],
  Fail: ["Error", "Cause"],
  Succeed: ["Output"],
};
const MOST_STEPS = 10_000;
const context = {
  Execution: { Name: "the-execution" },
  StateMachine: { Id: "arn:the-machine" },
};
const expressions = new Map();
const calls = [];
let waits = 0;
let steps = 0;

class Failed extends Error {
  constructor(error, cause) {
    super(`${error}: ${cause}`);
    this.output = { Error: error, Cause: cause };
  }
}

// Once each: some are asked for a thousand times.
function parsed(text) {
  if (!expressions.has(text)) expressions.set(text, jsonata(text));
  return expressions.get(text);
}

async function filled(template, variables, states) {
  if (typeof template === "string") {
    const expression = /^\{%(.*)%\}$/s.exec(template);
    if (!expression) return template;
    const value = await parsed(expression[1]).evaluate(undefined, { ...variables, states });
    if (value === undefined) throw new Failed("States.QueryEvaluationError", template);
    return JSON.parse(JSON.stringify(value));
  }
  if (Array.isArray(template)) {
    return Promise.all(template.map((each) => filled(each, variables, states)));
  }
  if (template !== null && typeof template === "object") {
    const entries = Object.entries(template).map(async ([key, value]) => [
      key,
      await filled(value, variables, states),
    ]);
    return Object.fromEntries(await Promise.all(entries));
  }
  return template;
}

async function run(machine, input, outer) {
  let variables = { ...outer };
  let name = machine.StartAt;
  for (;;) {
    if ((steps += 1) > MOST_STEPS) throw new Error(`no end in sight at ${name}`);
    const state = machine.States[name];
    const fields = ["Type", "Comment", "Next", "End", ...KNOWN[state.Type]];
    const alien = Object.keys(state).find((field) => !fields.includes(field));
    if (alien) throw new Error(`${name}: ${alien} is not known here`);
    const step = await taken(name, state, input, variables);
    const states = { input, context, ...step.states };
    const from = step.from ?? state;
    const assigned = await filled(from.Assign ?? {}, variables, states);
    input = from.Output === undefined ? step.output : await filled(from.Output, variables, states);
    variables = { ...variables, ...assigned };
    name = step.next ?? from.Next;
    if ((from === state && state.End) || state.Type === "Succeed") return input;
  }
}

async function taken(name, state, input, variables) {
  const fill = (template) => filled(template, variables, { input, context });
  switch (state.Type) {
    case "Task": {
      const asked = await fill(state.Arguments);
      const { FunctionName: target, Payload: payload } = asked;
      calls.push({ state: name, ...(target ? { function: target, payload } : asked) });
      const answers = script[name];
      const answer = answers.length > 1 ? answers.shift() : answers[0];
      if (!answer.error) {
        const result = { Payload: answer.payload };
        return { states: { result }, output: result };
      }
      const errorOutput = { Error: answer.error, Cause: answer.cause ?? "" };
      const handler = (state.Catch ?? []).find(({ ErrorEquals: errors }) =>
        errors.some((error) => error === answer.error || error === "States.ALL"),
      );
      if (!handler) throw new Failed(errorOutput.Error, errorOutput.Cause);
      return { states: { errorOutput }, output: errorOutput, from: handler };
    }
    case "Choice": {
      for (const choice of state.Choices) {
        const condition = await fill(choice.Condition);
        if (typeof condition !== "boolean") throw new Error(`${name}: ${condition} is no answer`);
        if (condition) return { output: input, next: choice.Next };
      }
      return { output: input, next: state.Default };
    }
    case "Map": {
      const output = [];
      for (const item of await fill(state.Items)) {
        output.push(await run(state.ItemProcessor, item, variables));
      }
      return { output };
    }
    case "Fail":
      throw new Failed(await fill(state.Error), await fill(state.Cause));
    case "Wait":
      waits += await fill(state.Seconds);
      return { output: input };
    default:
      return { output: input };
  }
}

const { machine, input, script } = JSON.parse(readFileSync(0, "utf8"));
let ended;
try {
  ended = { status: "SUCCEEDED", output: await run(machine, input, {}) };
} catch (error) {
  if (!(error instanceof Failed)) throw error;
  ended = { status: "FAILED", error: error.output };
}
process.stdout.write(JSON.stringify({ ...ended, calls, waits }));
