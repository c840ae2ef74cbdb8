import Classify
import Foundation

let paths = CommandLine.arguments.dropFirst()
if paths.isEmpty {
    FileHandle.standardError.write(Data("usage: swift run read-images IMAGE ...\n".utf8))
    exit(2)
}
let classifier = try await Classifier()
if classifier.model.labels.isEmpty {
    FileHandle.standardError.write(Data("no names of classes in model.json: they are shown by their number\n".utf8))
}
var code: Int32 = 0
for path in paths {
    do {
        let best = try classifier.best(URL(fileURLWithPath: path))
        print(path)
        for guess in best {
            print(String(format: "  %6.2f %%  %4ld  ", 100 * guess.probability, guess.index) + guess.label)
        }
    } catch {
        FileHandle.standardError.write(Data("\(path): \(error)\n".utf8))
        code = 2
    }
}
exit(code)
